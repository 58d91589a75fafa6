//! Who a client is: the seam that authentication back ends fill.
//!
//! Back ends are asked on the connection's own task, before the connection reaches its session. They may
//! wait for disks and networks: no session waits with them.

pub mod background;
mod backoff;
pub mod certificate;
mod chain;
pub mod clock;
pub mod http;
pub mod jwt;
pub mod password;
pub mod scram;
pub mod secret;
#[cfg(test)]
mod test_server;
pub mod webhook;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub use chain::{Chain, OpenError};

use crate::{acl::Principal, codec::ReasonCode, config::ClientIdentity, net::Peer};

pub use certificate::{AlternativeName, Certificate};

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a client shows of itself in CONNECT.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The client identifier, assigned if the client sent none.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Where it connects from.
    pub peer: &'a Peer,
    /// The name of the listener that it came through.
    pub listener: &'a str,
    /// Whether the listener lets clients in that prove nothing.
    pub allow_anonymous: bool,
    /// What of a certificate is the user name on this listener.
    pub client_identity: ClientIdentity,
    /// The certificate that the client presented, if an authority of the listener signed it; or, if the identity is
    /// the common name, that which a trusted proxy has found good.
    pub certificate: Option<&'a Certificate>,
    /// The user name that the client has proved already, if it is connected and authenticates anew.
    pub proved: Option<&'a str>,
}

/// The password is left out.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
            .field("peer", &self.peer)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason code for CONNACK or DISCONNECT: `BadUserNameOrPassword` or `NotAuthorized` mostly. The client
    /// is told `NotAuthorized` where the packet cannot have this one.
    pub code: ReasonCode,
    /// Why, for the log; the client does not hear it.
    pub why: String,
}

impl Denial {
    /// The code for CONNACK: that of the back end if CONNACK has it.
    pub(crate) fn conn_ack_code(&self) -> ReasonCode {
        if self.code.refuses_connection() { self.code } else { ReasonCode::NotAuthorized }
    }

    /// The code for DISCONNECT, which has no `BadUserNameOrPassword`.
    pub(crate) fn disconnect_code(&self) -> ReasonCode {
        if self.code.ends_connection() { self.code } else { ReasonCode::NotAuthorized }
    }
}

/// Decides who clients are.
pub trait Authenticate: Send + Sync + 'static {
    /// Decides by what is in CONNECT.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>>;

    /// Begins an enhanced authentication by this method, also to re-authenticate a connected client.
    /// `None` if the method is not supported. `[MQTT-4.12.0-1]`
    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        let _ = (method, credentials);
        None
    }
}

/// One source of proof among several: a password file, a key for tokens, a service.
pub trait Backend: Send + Sync + 'static {
    /// Decides by what is in CONNECT, or leaves it to the next back end.
    fn check<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Verdict>;

    /// The users that it has a list of, each with a digest that changes with what the user has to show. Of who is not
    /// in it any more, or not so, connections are ended.
    fn users(&self) -> Vec<(Box<str>, [u8; 32])> {
        Vec::new()
    }

    /// Begins an enhanced authentication by this method. `None` if it is none of this back end's.
    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        let _ = (method, credentials);
        None
    }
}

/// What a [`Backend`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client is this one.
    Accepted(Principal),
    /// The client is not who it says, whatever others know.
    Refused(Denial),
    /// The client shows nothing that is this back end's business: the next one is asked.
    Passed,
}

/// One enhanced authentication: a conversation by AUTH packets.
pub trait Exchange: Send {
    /// Takes what the client said and decides how to go on.
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step>;
}

/// How an enhanced authentication goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// AUTH 0x18 with this data goes to the client, whose answer is the next step. `[MQTT-4.12.0-2]`
    Continue(Vec<u8>),
    /// The client is who it says, and gets this data in CONNACK or AUTH 0x00.
    Success(Principal, Option<Vec<u8>>),
    /// It is not.
    Failure(Denial),
}

/// Lets in who the listener lets in: who presented a certificate, as the user that it names by the listener's
/// `client_identity`; where the listener allows anonymous clients, anybody else too. Passwords are not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByListener;

impl Authenticate for ByListener {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(std::future::ready(by_listener(&credentials)))
    }
}

/// What the listener says of a client that nobody else is asked about.
fn by_listener(credentials: &Credentials<'_>) -> Result<Principal, Denial> {
    let Credentials { client_identity, certificate, user_name, .. } = *credentials;
    match (certificate::principal(client_identity, certificate, user_name)?, certificate) {
        (Some(principal), _) => Ok(principal),
        (None, Some(certificate)) => {
            Ok(Principal { user: None, details: Some(certificate.details().into()) })
        }
        (None, None) if credentials.allow_anonymous => Ok(Principal::default()),
        (None, None) => {
            let why = format!("listener '{}' does not allow anonymous clients", credentials.listener);
            Err(Denial { code: ReasonCode::NotAuthorized, why })
        }
    }
}

/// How the broker authenticates.
pub type Authenticator = Arc<dyn Authenticate>;
