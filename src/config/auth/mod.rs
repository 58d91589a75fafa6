//! Settings of authentication.

pub mod jwt;
pub mod url;
pub mod webhook;
