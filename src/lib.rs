//! Dunlin: an MQTT 3.1, 3.1.1 and 5 broker.

pub mod acl;
pub mod allowance;
pub mod audit;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod codec;
pub mod config;
pub mod control;
pub mod guard;
pub mod histogram;
pub mod limits;
pub mod message;
#[doc(hidden)]
pub mod mutation;
pub mod net;
pub mod server;
pub mod session;
pub mod store;
pub mod time;
pub mod topic;

pub use codec::QoS;
pub use config::Config;
pub use server::{Broker, Builder, Client, ClientError, Delivered, Publication, StartError};
