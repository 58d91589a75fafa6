//! Listeners: what they bind, what they refuse, and how connections come in.

use std::{io, net::SocketAddr};

use dunlin::{
    config::{Address, Transport},
    net::{BindErrorKind, BoundListener, Peer, is_resource_exhaustion},
};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{listener, port_of, tcp, within};

fn bind(address: Address) -> Result<BoundListener, dunlin::net::BindError> {
    BoundListener::bind(&listener(address, Transport::Plain))
}

#[tokio::test]
async fn an_accepted_socket_knows_its_peer() {
    let bound = bind(tcp("127.0.0.1:0")).unwrap();
    assert_ne!(port_of(&bound).port(), 0);
    let acceptor = bound.acceptor().unwrap();
    let client = TcpStream::connect(port_of(&bound)).await.unwrap();
    let (socket, peer) = within(acceptor.accept()).await.unwrap();
    assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
    assert_eq!(*socket.peer(), peer);
}

#[test]
fn an_address_in_use_is_said_to_be_so() {
    let bound = bind(tcp("127.0.0.1:0")).unwrap();
    let error = bind(Address::Tcp(port_of(&bound))).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::InUse);
    assert_eq!(
        error.to_string(),
        format!(
            "listener \"test\": address {} is already in use; stop the process that listens there or choose \
             another with --listen",
            port_of(&bound)
        )
    );
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // 192.0.2.0/24 is for documentation.
    let error = bind(tcp("192.0.2.1:1883")).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::AddressNotAvailable);
    assert!(error.to_string().contains("this machine has no address 192.0.2.1"), "{error}");
}

/// Tries of a test that another process can spoil by taking a port in the wrong moment.
const TRIES: usize = 10;

#[tokio::test]
async fn a_port_is_free_again_at_once() {
    let rebinds = async || {
        let bound = bind(tcp("127.0.0.1:0")).unwrap();
        let address = port_of(&bound);
        let acceptor = bound.acceptor().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        // Who closes first keeps the connection in TIME_WAIT.
        drop(within(acceptor.accept()).await.unwrap());
        assert_eq!(within(client.read(&mut [0; 1])).await.unwrap(), 0);
        drop((client, acceptor, bound));
        bind(Address::Tcp(address)).is_ok()
    };
    for _ in 0..TRIES {
        if rebinds().await {
            return;
        }
    }
    panic!("a port with closed connections cannot be bound");
}

#[test]
fn loopback_of_both_families_shares_a_port() {
    let shares = || match bind(tcp("[::1]:0")) {
        Ok(v6) => {
            let same_port = SocketAddr::new("127.0.0.1".parse().unwrap(), port_of(&v6).port());
            bind(Address::Tcp(same_port)).is_ok()
        }
        // A machine without IPv6.
        Err(error) => error.kind() == BindErrorKind::AddressNotAvailable,
    };
    assert!((0..TRIES).any(|_| shares()));
}

#[tokio::test]
async fn a_dual_stack_listener_shows_ipv4_peers_as_such() {
    let Ok(bound) = bind(tcp("[::]:0")) else { return };
    let acceptor = bound.acceptor().unwrap();
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), port_of(&bound).port());
    let Ok(client) = TcpStream::connect(address).await else { return };
    let (_socket, peer) = within(acceptor.accept()).await.unwrap();
    assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
}

#[tokio::test]
async fn two_threads_accept_from_one_listener() {
    let bound = bind(tcp("127.0.0.1:0")).unwrap();
    let address = port_of(&bound);
    let (here, elsewhere) = (bound.acceptor().unwrap(), bound);
    let (accepted, accepted_elsewhere) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let acceptor = elsewhere.acceptor().unwrap();
            let (_socket, peer) = within(acceptor.accept()).await.unwrap();
            accepted.send(peer).unwrap();
        });
    });
    let first = TcpStream::connect(address).await.unwrap();
    // Nobody accepts here before the other thread has taken one.
    let taken = within(accepted_elsewhere).await.unwrap();
    assert_eq!(taken, Peer::Tcp(first.local_addr().unwrap()));
    thread.join().unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let (_socket, peer) = within(here.accept()).await.unwrap();
    assert_eq!(peer, Peer::Tcp(second.local_addr().unwrap()));
}

#[test]
fn running_out_of_descriptors_is_told_from_other_errors() {
    for code in [12, 23, 24] {
        assert!(is_resource_exhaustion(&io::Error::from_raw_os_error(code)), "{code}");
    }
    assert!(!is_resource_exhaustion(&io::Error::from_raw_os_error(22)));
    assert!(!is_resource_exhaustion(&io::Error::from(io::ErrorKind::ConnectionAborted)));
}

#[cfg(unix)]
mod unix {
    use std::{
        fs,
        os::unix::{fs::MetadataExt, net::UnixListener as StdListener},
    };

    use dunlin::net::{Stream, TransportKind};
    use tokio::net::UnixStream;

    use super::*;
    use crate::certificates::Directory;

    #[tokio::test]
    async fn a_unix_socket_accepts_and_leaves_no_file() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let bound = bind(Address::Unix(path.clone())).unwrap();
        assert_eq!(bound.local_address().to_string(), path.display().to_string());
        let acceptor = bound.acceptor().unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let (socket, peer) = within(acceptor.accept()).await.unwrap();
        let uid = fs::metadata(&path).unwrap().uid();
        assert!(matches!(peer, Peer::Unix { uid: Some(seen), .. } if seen == uid), "{peer}");
        assert_eq!(Stream::plain(socket).transport(), TransportKind::Unix);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = Directory::new();
        let path = directory.path("socket");
        // The standard library's listener leaves its file behind, like a process that is killed.
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = bind(Address::Unix(path.clone())).unwrap();
        let error = bind(Address::Unix(path.clone())).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::InUse);
        drop(bound);
        bind(Address::Unix(path)).unwrap();
    }

    #[test]
    fn a_full_queue_does_not_make_a_living_socket_stale() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let address = socket2::SockAddr::unix(&path).unwrap();
        let new = || {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let living = new();
        living.bind(&address).unwrap();
        living.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = new();
            let full = client.connect(&address).is_err();
            waiting.push(client);
            if full {
                break;
            }
        }
        assert_eq!(bind(Address::Unix(path)).unwrap_err().kind(), BindErrorKind::InUse);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = Directory::new();
        let path = directory.write("precious", "data");
        let error = bind(Address::Unix(path.clone())).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::NotASocket);
        assert_eq!(fs::read_to_string(path).unwrap(), "data");
    }

    #[test]
    fn the_file_of_a_successor_is_left_alone() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let first = bind(Address::Unix(path.clone())).unwrap();
        fs::rename(&path, directory.path("moved away")).unwrap();
        let second = bind(Address::Unix(path.clone())).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn impossible_paths_are_explained() {
        let directory = Directory::new();
        let error = bind(Address::Unix(directory.path("absent/socket"))).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::DirectoryMissing);
        let error = bind(Address::Unix(directory.path(&"long".repeat(40)))).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::BadPath);
        assert!(error.to_string().contains("shorter than 108 bytes"), "{error}");
    }
}
