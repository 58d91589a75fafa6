//! Enhanced authentication on a connection that is up already.

use std::sync::Arc;

use tracing::info;

use crate::{
    acl::Principal,
    auth::{BoxFuture, Certificate, Credentials, Exchange, Step},
    codec::{Auth, AuthProperties, Connect, ReasonCode},
    net::{Peer, Stream},
};

use super::{Common, handshake::certificate, listen::Door};

/// What a connection remembers to authenticate again, and how far it is. `[MQTT-4.12.1-1]`
pub(crate) struct Reauthentication {
    method: String,
    client_id: String,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    peer: Peer,
    door: Arc<Door>,
    certificate: Option<Certificate>,
    /// The user name that was proved last.
    user: Option<Arc<str>>,
    /// The exchange under way.
    exchange: Option<Box<dyn Exchange>>,
}

/// What a step came to.
pub(crate) enum Outcome {
    /// AUTH for the client; with `principal` the exchange is over.
    Answer { reason: ReasonCode, data: Option<Vec<u8>>, principal: Option<Principal> },
    /// The client is not who it says. `[MQTT-4.12.1-2]`
    Failed(ReasonCode),
}

impl Reauthentication {
    /// For a client that used enhanced authentication to connect.
    pub(crate) fn new(
        connect: &Connect<'_>,
        client_id: &str,
        user: Option<Arc<str>>,
        stream: &Stream,
        door: &Arc<Door>,
    ) -> Option<Box<Reauthentication>> {
        let method = connect.properties.authentication_method?;
        Some(Box::new(Reauthentication {
            method: method.into(),
            client_id: client_id.into(),
            user_name: connect.user_name.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
            peer: *stream.peer(),
            door: door.clone(),
            certificate: certificate(stream, door).ok().flatten(),
            user,
            exchange: None,
        }))
    }

    /// AUTH to answer with.
    pub(crate) fn packet<'a>(&'a self, reason: ReasonCode, data: Option<&'a [u8]>) -> Auth<'a> {
        // [MQTT-4.12.0-5]
        let properties = AuthProperties { method: Some(&self.method), data, ..AuthProperties::default() };
        Auth { reason, properties }
    }

    /// Takes AUTH from the client. An error says what is wrong with it.
    pub(crate) fn step(
        mut self: Box<Self>,
        auth: &Auth<'_>,
        common: &Arc<Common>,
    ) -> Result<BoxFuture<'static, (Box<Reauthentication>, Outcome)>, &'static str> {
        if auth.properties.method != Some(self.method.as_str()) {
            return Err("AUTH with another authentication method than CONNECT");
        }
        match (auth.reason, &self.exchange) {
            (ReasonCode::ReAuthenticate, None) => {
                let credentials = Credentials {
                    client_id: &self.client_id,
                    user_name: self.user_name.as_deref(),
                    password: self.password.as_deref(),
                    peer: &self.peer,
                    listener: &self.door.name,
                    allow_anonymous: self.door.allow_anonymous,
                    client_identity: self.door.client_identity,
                    certificate: self.certificate.as_ref(),
                    proved: self.user.as_deref(),
                };
                self.exchange = common.authenticator.begin(&self.method, credentials);
            }
            (ReasonCode::ContinueAuthentication, Some(_)) => {}
            (ReasonCode::ReAuthenticate, Some(_)) => return Err("AUTH begins a second authentication"),
            _ => return Err("AUTH without an authentication under way"),
        }
        let data = auth.properties.data.map(<[u8]>::to_vec);
        Ok(Box::pin(async move {
            let outcome = match &mut self.exchange {
                None => Outcome::Failed(ReasonCode::BadAuthenticationMethod),
                Some(exchange) => match exchange.step(data.as_deref()).await {
                    Step::Continue(data) => {
                        let reason = ReasonCode::ContinueAuthentication;
                        Outcome::Answer { reason, data: Some(data), principal: None }
                    }
                    Step::Success(principal, data) => {
                        Outcome::Answer { reason: ReasonCode::Success, data, principal: Some(principal) }
                    }
                    Step::Failure(denial) => {
                        let code = denial.disconnect_code();
                        info!(target: "dunlin::auth", client = self.client_id, peer = %self.peer, %code, "denied: {}", denial.why);
                        Outcome::Failed(code)
                    }
                },
            };
            if let Outcome::Answer { principal: Some(principal), .. } = &outcome {
                self.user.clone_from(&principal.user);
                self.exchange = None;
            }
            (self, outcome)
        }))
    }
}
