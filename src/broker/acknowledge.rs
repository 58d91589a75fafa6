//! Acknowledgements, both ways.

use crate::{
    codec::{Ack, AckProperties, Packet, PacketId, QoS, ReasonCode},
    limits::Durability,
    mutation::{self, Mutation},
    session::{AckError, Body, LinkId, SessionHandle},
    time::Timestamp,
};

use super::{Cause, Gate, Op, Outputs, Shard, StepKind, misbehaved};

/// An acknowledgement that is due to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckDue {
    pub(super) kind: AckKind,
    pub(super) packet_id: PacketId,
    pub(super) reason: ReasonCode,
    /// The reason in words; empty if there is nothing to say.
    pub(super) why: &'static str,
}

/// Which acknowledgement.
#[expect(clippy::enum_variant_names, reason = "the names are the standard's own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckDue {
    /// A successful one.
    pub(super) fn new(kind: AckKind, packet_id: PacketId) -> AckDue {
        AckDue { kind, packet_id, reason: ReasonCode::Success, why: "" }
    }

    fn packet(&self) -> Packet<'static> {
        let properties = AckProperties {
            reason_string: Some(self.why).filter(|why| !why.is_empty()),
            ..AckProperties::default()
        };
        let ack = Ack { packet_id: self.packet_id, reason: self.reason, properties };
        match self.kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubRel => Packet::PubRel(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        }
    }
}

impl Shard {
    /// Sends an acknowledgement once its commit is done. Those of one connection leave in the order of
    /// these calls, so that a later one that needs no commit waits behind an earlier one that does.
    /// `[MQTT-3.1.1/4.6.0-2]` `[MQTT-3.1.1/4.6.0-3]`
    pub(super) fn acknowledge(&mut self, id: LinkId, due: AckDue, gate: Option<u64>, out: &mut Outputs) {
        let committed = self.journal.committed();
        let link = &mut self.links[id.slot as usize];
        let commit = gate.unwrap_or(0).max(link.ack_gate);
        if commit <= committed || mutation::is_on(Mutation::AckBeforeCommit) {
            self.write(id, &due.packet(), out);
            return;
        }
        if due.kind == AckKind::PubAck {
            link.unacknowledged += 1;
        }
        link.gated += 1;
        link.ack_gate = self.journal.wait(commit, Gate::Ack(id, due));
    }

    /// The commit of an acknowledgement is done.
    pub(super) fn write_ack_due(&mut self, id: LinkId, due: &AckDue, out: &mut Outputs) {
        let Some(link) = self.link_mut(id).filter(|link| link.session.is_some()) else { return };
        if due.kind == AckKind::PubAck {
            link.unacknowledged -= 1;
        }
        link.gated -= 1;
        self.write(id, &due.packet(), out);
    }

    pub(super) fn on_pub_ack(
        &mut self,
        now: Timestamp,
        slot: u32,
        ack: &Ack<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        // [MQTT-4.4.0-2] also with a reason code of 0x80 or more the message is settled.
        match self.sessions[slot as usize].outbound.on_pub_ack(ack.packet_id) {
            Ok((number, body)) => self.complete(slot, number, &body, ack, out),
            Err(error) => self.on_ack_error(error, "PUBACK")?,
        }
        self.pump(now, slot, out);
        Ok(())
    }

    pub(super) fn on_pub_rec(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        ack: &Ack<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        let outbound = &mut self.sessions[slot as usize].outbound;
        if ack.reason.is_error() {
            match outbound.on_pub_rec_refused(ack.packet_id) {
                Ok((number, body)) => self.complete(slot, number, &body, ack, out),
                Err(error) => self.on_ack_error(error, "PUBREC")?,
            }
            self.pump(now, slot, out);
            return Ok(());
        }
        let mut due = AckDue::new(AckKind::PubRel, ack.packet_id);
        let mut gate = None;
        match outbound.on_pub_rec(ack.packet_id) {
            Ok((number, first)) => {
                let session = self.sessions[slot as usize].handle.clone();
                if let Some(body) = first {
                    self.settle(&session, body.size_bytes());
                    self.counters().deliveries_completed.add(1);
                    self.trace_body(slot, &body, StepKind::Received, "PUBREC", out);
                    // PUBREL says that we know: after a crash we must not send the message again.
                    gate = body
                        .record()
                        .and_then(|message| self.journal_for(id, Op::Received { session, number, message }));
                } else {
                    gate = self.pending_of(id, &session);
                }
            }
            Err(error) => {
                self.on_ack_error(error, "PUBREC")?;
                due.reason = ReasonCode::PacketIdentifierNotFound;
            }
        }
        self.acknowledge(id, due, gate, out);
        Ok(())
    }

    pub(super) fn on_pub_rel(
        &mut self,
        id: LinkId,
        slot: u32,
        ack: &Ack<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        // [MQTT-4.3.3-11]
        let mut due = AckDue::new(AckKind::PubComp, ack.packet_id);
        let mut gate = None;
        let session = &mut self.sessions[slot as usize];
        if session.inbound.release(ack.packet_id) {
            let session = session.handle.clone();
            if session.is_durable() && !mutation::is_on(Mutation::ReleaseNotStored) {
                // PUBCOMP frees the identifier: after a crash it must not look like a repetition.
                gate = self.journal_for(id, Op::Release { session, packet_id: ack.packet_id });
            }
        } else {
            let session = session.handle.clone();
            self.counters().acks_unknown.add(1);
            due.reason = ReasonCode::PacketIdentifierNotFound;
            gate = self.pending_of(id, &session);
        }
        self.acknowledge(id, due, gate, out);
        Ok(())
    }

    /// The commit that a repeated acknowledgement waits for: the first one may have been lost with its
    /// connection before its commit was done. What ends with its connection needs none, for on the same
    /// connection the repetition queues behind the first.
    pub(super) fn pending_of(&self, id: LinkId, session: &SessionHandle) -> Option<u64> {
        let waits = session.is_durable() && self.durability_of(id) == Durability::Commit;
        if waits { self.journal.pending() } else { None }
    }

    pub(super) fn on_pub_comp(
        &mut self,
        now: Timestamp,
        slot: u32,
        ack: &Ack<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        let session = &mut self.sessions[slot as usize];
        match session.outbound.on_pub_comp(ack.packet_id) {
            Ok(number) => {
                let (handle, base) = (&session.handle, session.outbound.base());
                if handle.is_durable() {
                    let session = handle.id;
                    self.journal.lazy(None, Op::Settle { session, number, message: None, base });
                }
            }
            Err(error) => self.on_ack_error(error, "PUBCOMP")?,
        }
        self.pump(now, slot, out);
        Ok(())
    }

    /// An identifier that is not in use is counted: an acknowledgement may cross the end of its message.
    /// One that answers with the wrong packet breaks the protocol.
    fn on_ack_error(&self, error: AckError, packet: &str) -> Result<(), Cause> {
        match error {
            AckError::Unknown => {
                self.counters().acks_unknown.add(1);
                Ok(())
            }
            AckError::WrongPacket => {
                let what = format!("{packet} for a message that awaits another packet");
                Err(misbehaved(ReasonCode::ProtocolError, what))
            }
        }
    }

    /// The client has acknowledged a message.
    fn complete(&mut self, slot: u32, number: u64, body: &Body, ack: &Ack<'_>, out: &mut Outputs) {
        if body.may_be_followed() {
            self.trace_body(slot, body, StepKind::Acknowledged, ack.reason.to_string(), out);
        }
        self.counters().deliveries_completed.add(1);
        self.settle_number(slot, number, body);
    }

    /// A message is settled for a session.
    pub(super) fn settle_number(&mut self, slot: u32, number: u64, body: &Body) {
        let session = &self.sessions[slot as usize];
        let (handle, base) = (&session.handle, session.outbound.base());
        let id = handle.id;
        self.settle(handle, body.size_bytes());
        if let Some(message) = body.record() {
            let op = Op::Settle { session: id, number, message: Some(message), base };
            self.journal.lazy(None, op);
        }
    }

    /// A message is settled for a session that goes on, because another member of the shared subscription has it.
    /// What is settled out of turn is not stored otherwise: after a crash the session would have the message again
    /// where somebody else keeps its record, which is too often for QoS 2. `[MQTT-4.8.2-5]`
    pub(super) fn settle_passed(&mut self, slot: u32, number: u64, published: QoS, body: &Body) {
        let session = &self.sessions[slot as usize];
        let (handle, base) = (session.handle.clone(), session.outbound.base());
        let is_told = published == QoS::ExactlyOnce && !mutation::is_on(Mutation::PassedForgotten);
        match body.record().filter(|_| is_told) {
            Some(message) => {
                self.settle(&handle, body.size_bytes());
                let op = Op::Passed { session: handle, number, message, base };
                self.journal.lazy(Some(self.shared.sequence.next()), op);
            }
            None => self.settle_number(slot, number, body),
        }
    }

    /// Takes a message out of the account of queues.
    pub(super) fn settle(&self, session: &SessionHandle, size_bytes: usize) {
        session.settle(size_bytes);
        self.counters().queued_bytes.sub(size_bytes as u64);
        self.counters().queued_messages.sub(1);
    }
}
