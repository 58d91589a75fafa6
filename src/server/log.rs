//! Events of the core as lines of the log.

use tracing::{debug, error, info, warn};

use crate::{
    acl::{Action, Authorize},
    audit::{Audit, Record},
    broker::{Cause, Event},
    time::Timestamp,
};

/// Writes an event to the log: what people want to know at `info`, what a client did wrong at `warn`.
pub(crate) fn event(event: &Event, rules: &dyn Authorize) {
    match event {
        Event::Connected { client_id, user, peer, session_present, keep_alive_secs, expiry_secs } => info!(
            target: "dunlin::connection",
            client = %client_id, user = user.as_deref(), %peer, session_present, keep_alive_secs, expiry_secs, "connected"
        ),
        Event::Disconnected { client_id, peer, cause } => disconnected(client_id, peer, cause),
        Event::SessionEnded { client_id, undelivered: 0 } => {
            debug!(target: "dunlin::connection", client = %client_id, "session ended");
        }
        Event::SessionEnded { client_id, undelivered } => {
            info!(target: "dunlin::connection", client = %client_id, undelivered, "session ended before all was delivered");
        }
        Event::PublishRefused { client_id, topic, code, why } => {
            warn!(target: "dunlin::connection", client = %client_id, %topic, %code, "PUBLISH refused, further ones are only counted: {why}");
        }
        Event::Denied { client_id, user, action, topic, rule } => {
            let (user, rule, action) = (user.as_deref(), rules.describe(*rule), word(*action));
            warn!(target: "dunlin::access", client = %client_id, user, action, %topic, rule, "denied; what this rule denies the client from now on is only counted");
        }
        Event::SubscriptionRefused { client_id, filter, code } => {
            warn!(target: "dunlin::connection", client = %client_id, filter, %code, "subscription refused; further ones are only counted");
        }
        Event::QueueUnreadable { client_id, messages } => {
            error!(target: "dunlin::connection", client = %client_id, messages, "a part of a queue cannot be read; it is there after the next start");
        }
        Event::Dropped { client_id, topic, reason } => {
            let reason = reason.name();
            warn!(
                target: "dunlin::connection",
                client = %client_id, %topic, reason, "message dropped; further ones are only counted"
            );
        }
    }
}

/// The same for people who look at the broker: a word for its kind, the client, and what happened.
pub(super) fn words<'a>(event: &'a Event, rules: &dyn Authorize) -> (&'static str, &'a str, String) {
    match event {
        Event::Connected { client_id, user, peer, session_present, .. } => {
            let user = user.as_deref().map_or_else(String::new, |user| format!(" as {user}"));
            let resumed = if *session_present { ", to its session" } else { "" };
            ("connected", client_id, format!("from {peer}{user}{resumed}"))
        }
        Event::Disconnected { client_id, peer, cause } => {
            ("disconnected", client_id, format!("from {peer}: {cause}"))
        }
        Event::SessionEnded { client_id, undelivered } => {
            ("session-ended", client_id, format!("{undelivered} messages undelivered"))
        }
        Event::PublishRefused { client_id, topic, code, why } => {
            ("publish-refused", client_id, format!("{topic}: {why} ({code})"))
        }
        Event::Denied { client_id, action, topic, rule, .. } => {
            ("denied", client_id, format!("{} {topic}: {}", word(*action), rules.describe(*rule)))
        }
        Event::SubscriptionRefused { client_id, filter, code } => {
            ("subscription-refused", client_id, format!("{filter}: {code}"))
        }
        Event::Dropped { client_id, topic, reason } => {
            ("dropped", client_id, format!("{topic}: {}", reason.name()))
        }
        Event::QueueUnreadable { client_id, messages } => {
            ("queue-unreadable", client_id, format!("{messages} messages"))
        }
    }
}

/// The same for the audit log: what matters for security.
pub(crate) fn audit(audit: &Audit, now: Timestamp, event: &Event, rules: &dyn Authorize) {
    match event {
        Event::Connected { client_id, user, peer, .. } => audit.write(|| {
            Record::new(now, "connected")
                .with("client", &**client_id)
                .with_some("user", user.as_deref())
                .with("peer", &**peer)
        }),
        Event::Disconnected { client_id, peer, cause } => audit.write(|| {
            Record::new(now, "disconnected")
                .with("client", &**client_id)
                .with("peer", &**peer)
                .with("why", cause.to_string())
        }),
        Event::Denied { client_id, user, action, topic, rule } => audit.write(|| {
            Record::new(now, "denied")
                .with("client", &**client_id)
                .with_some("user", user.as_deref())
                .with("action", word(*action))
                .with("topic", &**topic)
                .with("rule", rules.describe(*rule))
        }),
        Event::SessionEnded { .. }
        | Event::PublishRefused { .. }
        | Event::SubscriptionRefused { .. }
        | Event::QueueUnreadable { .. }
        | Event::Dropped { .. } => {}
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Publish { .. } => "publish",
        Action::Subscribe { .. } => "subscribe",
        Action::Receive => "receive",
    }
}

/// Two clients have the same identifier, and drive each other out.
pub(crate) fn contended(client_id: &str, one: &str, other: &str) {
    warn!(
        target: "dunlin::connection",
        client = %client_id, one, other,
        "two clients use this client identifier and end each other's connections: give one of them another"
    );
}

fn disconnected(client_id: &str, peer: &str, cause: &Cause) {
    match cause {
        Cause::Malformed(_) | Cause::Misbehaved(_) | Cause::TooSlow | Cause::AuthenticationFailed(_) => {
            warn!(target: "dunlin::connection", client = %client_id, %peer, "disconnected: {cause}");
        }
        Cause::Disconnect(_)
        | Cause::Eof
        | Cause::Io(_)
        | Cause::KeepAlive
        | Cause::TakenOver { .. }
        | Cause::ProofEnded
        | Cause::Kicked { .. }
        | Cause::Stopping => {
            info!(target: "dunlin::connection", client = %client_id, %peer, "disconnected: {cause}");
        }
    }
}
