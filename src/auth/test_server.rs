//! A small HTTP server on loopback, for tests: it answers as it is told and keeps what it was asked.

#![expect(clippy::disallowed_methods, reason = "a thread of its own for each connection")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::config::auth::url::{HttpUrl, PlainHttp};

/// How the server answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With this status and body.
    Body(u16, String),
    /// With a redirect to there.
    Redirect(String),
    /// Not at all; the connection stays open.
    Silence,
    /// By closing the connection.
    Close,
    /// With a body that does not end, and no length.
    Endless,
    /// With something that is no HTTP.
    Garbage,
}

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The first line and the headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    reply: Mutex<Reply>,
    asked: Mutex<Vec<Asked>>,
    /// Connections that get no answer.
    kept: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
}

impl TestServer {
    pub(crate) fn start(reply: Reply) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            asked: Mutex::default(),
            kept: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = of_thread.clone();
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        TestServer { address, shared }
    }

    pub(crate) fn json(body: &serde_json::Value) -> TestServer {
        TestServer::start(Reply::Body(200, body.to_string()))
    }

    pub(crate) fn reply(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> HttpUrl {
        HttpUrl::parse(&format!("http://{}/path", self.address), PlainHttp::Loopback).unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.shared.kept.lock().unwrap().clear();
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let reply = self.reply.lock().unwrap().clone();
        self.asked.lock().unwrap().push(Asked { head, body: String::from_utf8(body).unwrap() });
        // The client may be gone by now: that is for its side to tell.
        let _ = match reply {
            Reply::Body(status, body) => write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            ),
            Reply::Redirect(to) => write!(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ),
            Reply::Silence => {
                self.kept.lock().unwrap().push(stream);
                Ok(())
            }
            Reply::Close => Ok(()),
            Reply::Garbage => write!(stream, "220 mail.test ESMTP\r\n"),
            Reply::Endless => {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
                while stream.write_all(&[b' '; 4096]).is_ok() {}
                Ok(())
            }
        };
    }
}

/// Runs a test's own future.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}
