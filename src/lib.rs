//! Dunlin: an MQTT 3.1, 3.1.1 and 5 broker.

pub mod cli;
pub mod config;
