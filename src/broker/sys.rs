//! `$SYS/broker/…`: what the broker tells of itself by MQTT, under the names that mosquitto made familiar.

use crate::{
    codec::QoS,
    message::{Header, Message},
};

use super::{Counters, DropReason, Shared};

/// The retained messages that describe the broker at this moment.
pub fn messages(shared: &Shared, uptime_secs: u64) -> Vec<Message> {
    let sum = |counter: fn(&Counters) -> u64| shared.sum(counter).to_string();
    let connected = shared.sum(|counters| counters.connections.value());
    let sessions = shared.sum(|counters| counters.sessions.value());
    let retained = shared.retained.messages();
    let mut values = vec![
        ("version", concat!("dunlin ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("uptime", format!("{uptime_secs} seconds")),
        ("clients/connected", connected.to_string()),
        ("clients/active", connected.to_string()),
        ("clients/disconnected", sessions.saturating_sub(connected).to_string()),
        ("clients/inactive", sessions.saturating_sub(connected).to_string()),
        ("clients/total", sessions.to_string()),
        ("connections/accepted", sum(|counters| counters.connects.value())),
        ("connections/misbehaved", sum(|counters| counters.misbehaved.value())),
        ("connections/refused", sum(|counters| counters.connects_refused.value())),
        ("subscriptions/refused", sum(|counters| counters.subscriptions_refused.value())),
        ("messages/received", sum(|counters| counters.packets_received.value())),
        ("publish/messages/received", sum(|counters| total(&counters.publishes_received))),
        ("publish/messages/sent", sum(|counters| total(&counters.publishes_sent))),
        ("publish/messages/refused", sum(|counters| counters.publishes_refused.value())),
        ("publish/bytes/received", sum(|counters| counters.publish_bytes_received.value())),
        ("publish/bytes/sent", sum(|counters| counters.publish_bytes_sent.value())),
        ("bytes/received", sum(|counters| counters.bytes_received.value())),
        ("bytes/sent", sum(|counters| counters.bytes_sent.value())),
        ("deliveries/accepted", deliveries_accepted(shared).to_string()),
        ("deliveries/completed", sum(|counters| counters.deliveries_completed.value())),
        ("publish/messages/withheld", sum(|counters| counters.acks_withheld.value())),
        ("store/state", if shared.is_store_full() { "full" } else { "ready" }.to_owned()),
        ("store/refusals", sum(|counters| counters.store_refusals.value())),
        ("store/messages/count", sum(|counters| counters.queued_messages.value())),
        ("store/messages/bytes", sum(|counters| counters.queued_bytes.value())),
        ("retained messages/count", retained.to_string()),
        ("retained messages/bytes", shared.retained.bytes().to_string()),
        ("subscriptions/count", shared.router.subscriptions().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| message(name, &value))
    .collect::<Vec<_>>();
    let mut dropped = 0;
    for reason in DropReason::ALL {
        let count = shared.sum(|counters| counters.drops[reason as usize].value());
        dropped += count;
        values.push(message(&format!("publish/messages/dropped/{}", reason.name()), &count.to_string()));
    }
    values.push(message("publish/messages/dropped", &dropped.to_string()));
    values
}

/// Deliveries that the broker took on. One that went from one member of a shared subscription to another is one.
fn deliveries_accepted(shared: &Shared) -> u64 {
    let handed_over = shared.sum(|counters| counters.deliveries_handed_over.value());
    shared.sum(|counters| counters.deliveries_accepted.value()).wrapping_sub(handed_over)
}

fn total(counters: &[super::Counter; 3]) -> u64 {
    counters.iter().map(super::Counter::value).sum()
}

fn message(name: &str, value: &str) -> Message {
    let header = Header { qos: QoS::AtMostOnce, retain: true, expires_at: None, publisher: None };
    Message::new(format!("$SYS/broker/{name}").into(), value.as_bytes(), header)
}
