//! SUBSCRIBE and UNSUBSCRIBE.

use crate::{
    acl::{Action, Decision},
    codec::{
        AckProperties, Packet, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
        UnsubAck, Unsubscribe,
    },
    mutation::{self, Mutation},
    session::{LinkId, Notice, Replay, StoredSubscription, Subscription, TakeSent},
    time::Timestamp,
    topic::{TopicError, TopicFilter},
};

use super::{Cause, Event, Gate, Op, Outputs, Shard, misbehaved, overflow::STORE_FULL};

/// Longest name of a shared subscription in bytes. It goes into the record of each message that comes through
/// it: without a limit, a message of ten bytes would make 64 KiB on disk.
const SHARE_NAME_BYTES_MAX: usize = 256;

impl Shard {
    pub(super) fn on_subscribe(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        subscribe: &Subscribe<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        self.check_filters(subscribe.filters.len())?;
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
                Some(filter) => self
                    .permit(id, slot, &filter, subscription, out)
                    .and_then(|granted| self.subscribe(id, slot, filter, granted, &mut gate, &mut replays)),
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
        let reason_string = refusal(&codes, self.shared.is_store_full());
        let properties = AckProperties { reason_string, ..AckProperties::default() };
        self.write(
            id,
            &Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, codes: &codes }),
            out,
        );
        self.sessions[slot as usize].replays.extend(replays);
        self.pump(now, slot, out);
        self.journal_replays(id, slot);
        Ok(())
    }

    /// Notes for which subscriptions retained messages are still due at the end of a SUBSCRIBE: the client has
    /// been promised them. In the same commit as the subscriptions, which SUBACK waits for.
    fn journal_replays(&mut self, id: LinkId, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if !session.handle.is_durable() {
            return;
        }
        let session_of = session.handle.clone();
        let fresh = session.replays.iter_mut().filter(|replay| !replay.is_stored);
        let due: Vec<(TopicFilter, Subscription)> = fresh
            .map(|replay| {
                replay.is_stored = true;
                (replay.filter.clone(), replay.subscription)
            })
            .collect();
        for (filter, subscription) in due {
            let subscription = StoredSubscription { subscription, has_replay: true };
            let op = Op::PutSubscription { session: session_of.clone(), filter, subscription };
            self.journal_for(id, op);
        }
    }

    fn check_filters(&self, count: usize) -> Result<(), Cause> {
        if count > self.limits.packet_filters_max {
            let what = format!("{count} filters in one packet, above packet_filters_max");
            return Err(misbehaved(ReasonCode::QuotaExceeded, what));
        }
        Ok(())
    }

    /// A filter of the client. `None` if it is one, but beyond a limit.
    fn parse_filter(&self, text: &str) -> Result<Option<TopicFilter>, Cause> {
        match TopicFilter::parse(text, &self.limits.topics()) {
            Ok(filter) if filter.share_name().is_some_and(|name| name.len() > SHARE_NAME_BYTES_MAX) => {
                Ok(None)
            }
            Ok(filter) => Ok(Some(filter)),
            Err(error) if is_limit(&error) => Ok(None),
            Err(error) => Err(misbehaved(ReasonCode::TopicFilterInvalid, error.to_string())),
        }
    }

    /// What of a subscription the rules allow.
    fn permit(
        &mut self,
        id: LinkId,
        slot: u32,
        filter: &TopicFilter,
        mut subscription: Subscription,
        out: &mut Outputs,
    ) -> Result<Subscription, ReasonCode> {
        let asked = &mut subscription.options.qos;
        match self.decide(id, slot, Action::Subscribe { qos: *asked }, filter.pattern(), out) {
            Decision::Allowed => {}
            // [MQTT-3.8.4-8] a server may grant less than was asked for.
            Decision::AllowedUpTo(qos) => *asked = qos.min(*asked),
            Decision::Denied(_) if mutation::is_on(Mutation::DeniedGranted) => {}
            Decision::Denied(_) => return Err(ReasonCode::NotAuthorized),
        }
        Ok(subscription)
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
        let session = &mut self.sessions[slot as usize];
        let is_known = session.subscriptions.contains_key(&filter);
        let is_same = session.subscriptions.get(&filter) == Some(&subscription);
        if session.handle.is_durable() && !is_same && self.shared.is_store_full() {
            self.counters().store_refusals.add(1);
            return Err(ReasonCode::QuotaExceeded);
        }
        if !is_known && session.subscriptions.len() >= self.limits.session_subscriptions_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        if filter.share_name().is_some() && !is_known {
            if session.shares >= self.limits.session_shares_max {
                return Err(ReasonCode::QuotaExceeded);
            }
            session.shares += 1;
        }
        session.subscriptions.insert(filter.clone(), subscription);
        // In the router before the retained messages are read: see `RetainedStore`.
        self.shared.router.subscribe(&filter, &session.handle, subscription);
        let handle = session.handle.clone();
        if handle.is_durable() && !mutation::is_on(Mutation::SubscriptionNotStored) {
            let filter = filter.clone();
            *gate = self
                .journal_for(
                    id,
                    Op::PutSubscription { session: handle, filter, subscription: subscription.into() },
                )
                .or(*gate);
        }
        let session = &mut self.sessions[slot as usize];
        let SubscriptionOptions { qos, retain_handling, .. } = subscription.options;
        let is_due = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !is_known,
            RetainHandling::DoNotSend => false,
        };
        if is_known {
            // The same filter again begins anew: there are never more replays than subscriptions.
            session.replays.retain(|replay| replay.filter != filter);
            replays.retain(|replay| replay.filter != filter);
        }
        if is_due && filter.share_name().is_none() {
            replays.push(Replay { filter, subscription, from: String::new(), is_stored: false });
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
        let session = &self.sessions[slot as usize];
        if code != ReasonCode::NotAuthorized && session.is_news(Notice::SubscriptionRefused(code)) {
            let client_id = session.client_id().clone();
            out.events.push(Event::SubscriptionRefused { client_id, filter: filter.into(), code });
        }
        self.counters().subscriptions_refused.add(1);
        // [MQTT-3.1.1/3.9.3-2]
        if self.links[id.slot as usize].settings.version.is_v5() { code as u8 } else { 0x80 }
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        unsubscribe: &Unsubscribe<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        self.check_filters(unsubscribe.filters.len())?;
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        for text in unsubscribe.filters.iter() {
            filters.push(self.parse_filter(text)?);
        }
        let mut codes = Vec::with_capacity(filters.len());
        let mut gate = None;
        for filter in filters {
            let was_there =
                filter.is_some_and(|filter| self.unsubscribe(now, id, slot, filter, &mut gate, out));
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
    pub(super) fn unsubscribe(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        filter: TopicFilter,
        gate: &mut Option<u64>,
        out: &mut Outputs,
    ) -> bool {
        let session = &mut self.sessions[slot as usize];
        if session.subscriptions.remove(&filter).is_none() {
            return false;
        }
        session.replays.retain(|replay| replay.filter != filter);
        session.shares -= usize::from(filter.share_name().is_some());
        let handle = session.handle.clone();
        // [MQTT-3.10.4-2]
        self.shared.router.unsubscribe(&filter, &handle);
        if filter.share_name().is_some() {
            self.hand_back(now, slot, TakeSent::No, Some(filter.as_str()), out);
        }
        if handle.is_durable() {
            *gate = self.journal_for(id, Op::RemoveSubscription { session: handle, filter }).or(*gate);
        }
        true
    }

    /// Grants less than was granted before.
    pub(super) fn lower_subscription(
        &mut self,
        id: LinkId,
        slot: u32,
        filter: &TopicFilter,
        subscription: Subscription,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.subscriptions.insert(filter.clone(), subscription);
        self.shared.router.subscribe(filter, &session.handle, subscription);
        let session = session.handle.clone();
        if session.is_durable() {
            let op =
                Op::PutSubscription { session, filter: filter.clone(), subscription: subscription.into() };
            self.journal_for(id, op);
        }
    }

    /// Holds back what is written to a link from here on until a commit.
    pub(super) fn hold(&mut self, id: LinkId, gate: Option<u64>) {
        if let Some(commit) = gate {
            self.journal.wait(commit, Gate::Release(id));
            let link = &mut self.links[id.slot as usize];
            link.gated += 1;
            link.outbox.hold(commit);
        }
    }
}

/// The reason of the first filter that is refused, in words.
fn refusal(codes: &[u8], is_store_full: bool) -> Option<&'static str> {
    codes.iter().find(|code| **code >= 0x80).and_then(|code| ReasonCode::from_u8(*code)).map(
        |code| match code {
            ReasonCode::NotAuthorized => "not authorized to subscribe",
            ReasonCode::QuotaExceeded if is_store_full => STORE_FULL,
            ReasonCode::QuotaExceeded => "the session has as many subscriptions as it may",
            ReasonCode::TopicFilterInvalid => "a filter exceeds a limit",
            other => other.name(),
        },
    )
}

/// Whether an error is about a limit of ours rather than the rules of the standard.
fn is_limit(error: &TopicError) -> bool {
    matches!(error, TopicError::TooLong { .. } | TopicError::TooManyLevels { .. })
}
