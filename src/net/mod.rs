//! Sockets: listening and accepting.

mod listener;
mod socket;

pub use listener::{Acceptor, BindError, BindErrorKind, BoundListener, LocalAddress, is_resource_exhaustion};
pub use socket::{Opening, Peer, Socket};
