//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use crate::{
    acl::{Action, Decision},
    codec::{
        AckProperties, Packet, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
        UnsubAck, Unsubscribe,
    },
    session::{LinkId, Outgoing, SessionHandle, Source, Subscription, TakeSent},
    time::Timestamp,
    topic::{TopicError, TopicFilter},
};

use super::{Cause, Event, Gate, Op, Outputs, Shard, journal, misbehaved};

/// A subscription whose retained messages are due behind SUBACK.
struct Replay {
    filter: TopicFilter,
    subscription: Subscription,
}

impl Shard {
    pub(super) fn on_subscribe(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        subscribe: &Subscribe<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        // All filters are read before any takes effect: one that is no filter closes the connection.
        let mut requests = Vec::with_capacity(subscribe.filters.len());
        for (text, options) in subscribe.filters.iter() {
            requests.push((self.parse_filter(text)?, options, text));
        }
        let mut codes = Vec::with_capacity(requests.len());
        let mut replays = Vec::new();
        let mut gate = None;
        for (filter, options, text) in requests {
            let subscription = Subscription { options, id: subscribe.properties.subscription_id };
            let granted = match filter {
                Some(filter) => self.subscribe(id, slot, filter, subscription, &mut gate, &mut replays),
                None => Err(ReasonCode::TopicFilterInvalid),
            };
            // [MQTT-3.8.4-6] [MQTT-3.9.3-1]
            codes.push(match granted {
                Ok(qos) => qos as u8,
                Err(code) => self.refuse_filter(id, slot, text, code, out),
            });
        }
        self.hold(id, gate);
        // [MQTT-3.8.4-1] [MQTT-3.8.4-2]
        let properties = AckProperties::default();
        self.write(
            id,
            &Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, codes: &codes }),
            out,
        );
        for replay in &replays {
            self.replay(now, slot, replay, out);
        }
        self.pump(now, slot, out);
        Ok(())
    }

    /// A filter of the client. `None` if it is one, but beyond a limit.
    fn parse_filter(&self, text: &str) -> Result<Option<TopicFilter>, Cause> {
        match TopicFilter::parse(text, &self.shared.topic_limits()) {
            Ok(filter) => Ok(Some(filter)),
            Err(error) if is_limit(&error) => Ok(None),
            Err(error) => Err(misbehaved(ReasonCode::TopicFilterInvalid, error.to_string())),
        }
    }

    /// Adds or replaces one subscription. Returns the granted QoS.
    fn subscribe(
        &mut self,
        id: LinkId,
        slot: u32,
        filter: TopicFilter,
        subscription: Subscription,
        gate: &mut Option<u64>,
        replays: &mut Vec<Replay>,
    ) -> Result<QoS, ReasonCode> {
        let principal = &self.links[id.slot as usize].settings.principal;
        let session = &mut self.sessions[slot as usize];
        let client_id = &session.handle.client_id;
        if self.shared.authorize.decide(principal, client_id, Action::Subscribe, filter.pattern())
            == Decision::Denied
        {
            return Err(ReasonCode::NotAuthorized);
        }
        let is_known = session.subscriptions.contains_key(&filter);
        if !is_known && session.subscriptions.len() >= self.shared.limits.session_subscriptions_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        session.subscriptions.insert(filter.clone(), subscription);
        // In the router before the retained messages are read: see `RetainedStore`.
        self.shared.router.subscribe(&filter, &session.handle, subscription);
        if session.handle.is_durable() {
            let session = session.handle.clone();
            *gate = Some(self.journal.gating(Op::PutSubscription {
                session,
                filter: filter.clone(),
                subscription,
            }));
        }
        let SubscriptionOptions { qos, retain_handling, .. } = subscription.options;
        let is_due = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !is_known,
            RetainHandling::DoNotSend => false,
        };
        if is_due && filter.share_name().is_none() {
            replays.push(Replay { filter, subscription });
        }
        Ok(qos)
    }

    fn refuse_filter(
        &mut self,
        id: LinkId,
        slot: u32,
        filter: &str,
        code: ReasonCode,
        out: &mut Outputs,
    ) -> u8 {
        let client_id = self.sessions[slot as usize].client_id().clone();
        out.events.push(Event::SubscriptionRefused { client_id, filter: filter.into(), code });
        // [MQTT-3.1.1/3.9.3-2]
        if self.links[id.slot as usize].settings.version.is_v5() { code as u8 } else { 0x80 }
    }

    /// Sends the retained messages of a new subscription. `[MQTT-3.3.1-9]`
    fn replay(&mut self, now: Timestamp, slot: u32, replay: &Replay, out: &mut Outputs) {
        let Subscription { options, id } = replay.subscription;
        let handle = self.sessions[slot as usize].handle.clone();
        let mut found = Vec::new();
        self.shared.retained.for_each_matching(&replay.filter, now, |message| {
            let is_own = message.publisher() == Some(&handle.client_id);
            let qos = message.qos().min(options.qos);
            if !(options.no_local && is_own) {
                let number = (qos > QoS::AtMostOnce).then(|| handle.reserve(message.size_bytes()));
                found.push((message.clone(), qos, number));
            }
        });
        for (message, qos, number) in found {
            let size_bytes = message.size_bytes();
            let subscription_ids = id.map(|id| [id].into());
            let outgoing = Outgoing { message, qos, retain: true, subscription_ids, share: None };
            let Some(number) = number else {
                self.sessions[slot as usize].transient.push(Source::Retained, outgoing);
                continue;
            };
            self.counters().queued_bytes.add(size_bytes as u64);
            self.counters().queued_messages.add(1);
            self.journal_replay(&handle, number, &outgoing);
            self.enqueue(now, slot, number, outgoing, out);
        }
    }

    fn journal_replay(&mut self, session: &Arc<SessionHandle>, number: u64, outgoing: &Outgoing) {
        if !session.is_durable() {
            return;
        }
        let target = journal::Target {
            session: session.clone(),
            number,
            qos: outgoing.qos,
            retain: true,
            subscription_ids: outgoing.subscription_ids.clone(),
            share: None,
        };
        let message = outgoing.message.clone();
        self.journal.lazy(Op::Append { message, retain: false, targets: vec![target], received: None });
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        unsubscribe: &Unsubscribe<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        for text in unsubscribe.filters.iter() {
            filters.push(self.parse_filter(text)?);
        }
        let mut codes = Vec::with_capacity(filters.len());
        let mut gate = None;
        for filter in filters {
            let was_there = filter.is_some_and(|filter| self.unsubscribe(now, slot, filter, &mut gate, out));
            let code = if was_there { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code as u8);
        }
        self.hold(id, gate);
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1]
        let properties = AckProperties::default();
        let packet_id = unsubscribe.packet_id;
        self.write(id, &Packet::UnsubAck(UnsubAck { packet_id, properties, codes: &codes }), out);
        Ok(())
    }

    /// Ends one subscription. True if there was one. What was queued through it is still delivered, but for
    /// what a shared one had not begun to send: other members get that. `[MQTT-3.10.4-1]` `[MQTT-3.10.4-3]`
    fn unsubscribe(
        &mut self,
        now: Timestamp,
        slot: u32,
        filter: TopicFilter,
        gate: &mut Option<u64>,
        out: &mut Outputs,
    ) -> bool {
        let session = &mut self.sessions[slot as usize];
        if session.subscriptions.remove(&filter).is_none() {
            return false;
        }
        let handle = session.handle.clone();
        // [MQTT-3.10.4-2]
        self.shared.router.unsubscribe(&filter, &handle);
        if filter.share_name().is_some() {
            self.hand_back(now, slot, TakeSent::No, Some(filter.as_str()), out);
        }
        if handle.is_durable() {
            *gate = Some(self.journal.gating(Op::RemoveSubscription { session: handle, filter }));
        }
        true
    }

    /// Holds back what is written to a link from here on until a commit.
    fn hold(&mut self, id: LinkId, gate: Option<u64>) {
        if let Some(commit) = gate {
            self.journal.wait(commit, Gate::Release(id));
            self.links[id.slot as usize].outbox.hold(commit);
        }
    }
}

/// Whether an error is about a limit of ours rather than the rules of the standard.
fn is_limit(error: &TopicError) -> bool {
    matches!(error, TopicError::TooLong { .. } | TopicError::TooManyLevels { .. })
}
