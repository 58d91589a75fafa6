//! The control socket: how commands on this machine talk to the broker that runs here.
//!
//! It is a Unix socket in the data directory, for the user of the broker and the superuser alone. A command
//! sends one line of JSON, a [`Request`] with the version of the protocol; the broker answers with lines of JSON,
//! each a [`Reply`], of which the last is [`Reply::Done`] or [`Reply::Failed`], and closes. A new request is a
//! variant of [`Request`], a method of [`Steer`], and an arm in `serve::answer`.

mod client;
mod path;
mod plan;
mod protocol;
mod serve;

pub use client::{Client, RequestError};
pub use plan::Plan;
pub use protocol::{Reply, Request, VERSION};
pub use serve::{ControlSocket, Steer};
