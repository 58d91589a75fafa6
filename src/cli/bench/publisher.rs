//! A publisher: sends what is due, or as much as the window allows, and follows the acknowledgements.

use std::sync::Arc;

use super::{
    connection::{Allowed, OUTPUT_BYTES_MAX, Retaining},
    fault::Fault,
    load::Pace,
    payload::{Frame, Stamp},
    role::{Interval, Moment, Next, Phase, Ready, Role, Shared},
    schedule::Schedule,
    tally::Tally,
    window::InFlight,
};
use crate::codec::{Ack, Packet, QoS, encode};

/// A client that publishes.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    index: u32,
    frame: Frame,
    /// `None` if it sends whenever it may.
    schedule: Option<Schedule>,
    /// Messages without an acknowledgement; `None` at QoS 0, which has none.
    in_flight: Option<InFlight>,
    credit: Option<Credit>,
    sent: u64,
    taken: u64,
    messages_max: u64,
    /// Messages that were due up to here could not be sent in time.
    held_until_ns: u64,
    hold: Hold,
    state: State,
}

/// Whether something other than this program keeps it from sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sending {
        start_ns: u64,
    },
    /// All is sent; acknowledgements are to come.
    Settling,
    Finished,
}

/// Deliveries that may be outstanding.
struct Credit {
    fan_out: u64,
    deliveries_max: u64,
    /// What is known of the subscribers' count, which is not looked at for each message.
    delivered: u64,
}

impl Publisher {
    /// # Errors
    /// If the broker does not allow such messages.
    pub(super) fn new(shared: &Arc<Shared>, index: u32, allowed: &Allowed) -> Result<Self, Fault> {
        let load = &shared.load;
        let manner = load.manner;
        if manner.qos > allowed.maximum_qos {
            return Err(Fault::QoSUnsupported);
        }
        if manner.retain && allowed.retain == Retaining::Unavailable {
            return Err(Fault::RetainUnsupported);
        }
        let too_large = Fault::PacketTooLarge(allowed.packet_bytes_max);
        let frame = Frame::new(&load.topic(index), &load.content, manner, shared.target.version);
        let Some(frame) = frame else { return Err(too_large) };
        if frame.len() > allowed.packet_bytes_max as usize {
            return Err(too_large);
        }
        let schedule = match load.pace {
            Pace::Closed => None,
            Pace::Open { rate_per_sec, arrivals } => {
                Some(Schedule::new(arrivals, rate_per_sec, index, load.publishers, load.seed))
            }
        };
        // [MQTT-3.3.4-7] no more than the Receive Maximum of the broker.
        let window = load.window_messages_max.min(allowed.receive_maximum);
        let credit = load.waits_for_subscribers().then(|| Credit {
            fan_out: load.fan_out(),
            deliveries_max: load.fan_out() * u64::from(load.window_messages_max),
            delivered: 0,
        });
        Ok(Self {
            shared: Arc::clone(shared),
            index,
            frame,
            schedule,
            in_flight: (manner.qos > QoS::AtMostOnce).then(|| InFlight::new(window)),
            credit,
            sent: 0,
            taken: 0,
            messages_max: load.messages_max_of(index),
            held_until_ns: 0,
            hold: Hold::Free,
            state: State::Sending { start_ns: 0 },
        })
    }

    /// Sends until nothing is due or nothing may be sent.
    fn send(&mut self, interval: Interval, output: &mut Vec<u8>, moment: &mut Moment<'_>) -> Next {
        self.state = State::Sending { start_ns: interval.start_ns };
        while self.sent < self.messages_max {
            let due_ns = match &self.schedule {
                None => moment.now_ns,
                Some(schedule) => interval.start_ns.saturating_add(schedule.due_ns()),
            };
            if due_ns >= interval.end_ns {
                break;
            }
            if due_ns > moment.now_ns {
                return Next::At(due_ns);
            }
            if output.len() >= OUTPUT_BYTES_MAX || !self.has_room() || !self.has_credit(moment) {
                self.hold = Hold::Held;
                return Next::Event;
            }
            self.send_one(due_ns, output, moment);
        }
        self.state = State::Settling;
        self.settle(output, moment);
        Next::Event
    }

    fn send_one(&mut self, due_ns: u64, output: &mut Vec<u8>, moment: &mut Moment<'_>) {
        let late_ns = moment.now_ns - due_ns;
        if self.hold == Hold::Held {
            self.hold = Hold::Free;
            self.held_until_ns = moment.now_ns;
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.advance();
            if due_ns < self.held_until_ns {
                moment.tally.held += 1;
            } else if due_ns >= moment.measured_ns {
                moment.tally.lag.record(late_ns);
            }
        }
        let packet_id = self.in_flight.as_mut().and_then(|in_flight| in_flight.publish(due_ns));
        let delay_us = u32::try_from(late_ns / 1000).unwrap_or(u32::MAX);
        let stamp = Stamp { publisher: self.index, sequence: self.sent, due_ns, delay_us };
        self.frame.write(packet_id, &stamp, output);
        self.sent += 1;
        moment.tally.news.sent += 1;
        if self.in_flight.is_none() {
            self.count_taken(moment.tally);
        }
    }

    fn count_taken(&mut self, tally: &mut Tally) {
        self.taken += 1;
        tally.news.taken += 1;
        tally.news.settled += 1;
    }

    fn has_room(&self) -> bool {
        self.in_flight.as_ref().is_none_or(InFlight::has_room)
    }

    fn has_credit(&mut self, moment: &Moment<'_>) -> bool {
        let (Some(credit), Some(flow)) = (&mut self.credit, self.shared.flows.get(self.index as usize))
        else {
            return true;
        };
        let wanted = (self.sent + 1) * credit.fan_out;
        let within = |delivered| wanted <= delivered + credit.deliveries_max;
        if within(credit.delivered) {
            return true;
        }
        credit.delivered = flow.delivered();
        if within(credit.delivered) {
            return true;
        }
        flow.wait(moment.waker);
        // Once more, for a delivery may have been counted before anybody was there to be woken.
        credit.delivered = flow.delivered();
        within(credit.delivered)
    }

    /// Ends the sending early: what was due by then and not sent is told.
    fn stop(&mut self, end_ns: u64, tally: &mut Tally) {
        let State::Sending { start_ns } = self.state else { return };
        self.state = State::Settling;
        if let Some(schedule) = &self.schedule {
            let rest = self.messages_max - self.sent;
            tally.unsent += schedule.count_before(end_ns.saturating_sub(start_ns), rest);
        }
    }

    /// Tells when nothing is under way any more.
    fn settle(&mut self, output: &[u8], moment: &mut Moment<'_>) {
        let settled = output.is_empty() && self.in_flight.as_ref().is_none_or(InFlight::is_empty);
        if self.state == State::Settling && settled {
            self.state = State::Finished;
            moment.tally.news.finished += 1;
        }
    }

    /// The last acknowledgement of a message, or its refusal.
    fn settled(&mut self, ack: &Ack<'_>, due_ns: u64, moment: &mut Moment<'_>) {
        if ack.reason.is_error() {
            moment.tally.refused.count(ack.reason);
            moment.tally.news.settled += 1;
        } else {
            self.count_taken(moment.tally);
            if due_ns >= moment.measured_ns {
                moment.tally.acknowledged.record(moment.now_ns.saturating_sub(due_ns));
            }
        }
    }
}

impl Role for Publisher {
    fn take(
        &mut self,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
        moment: &mut Moment<'_>,
    ) -> Result<(), Fault> {
        let qos = self.shared.load.manner.qos;
        let unexpected = || Fault::Unexpected(packet.kind());
        let in_flight = self.in_flight.as_mut().ok_or_else(unexpected)?;
        match (packet, qos) {
            (Packet::PubAck(ack), QoS::AtLeastOnce) => {
                let due_ns = in_flight.settle(ack.packet_id).ok_or_else(unexpected)?;
                self.settled(ack, due_ns, moment);
            }
            // [MQTT-4.3.3-4] a PUBREC that refuses is the end of it, any other is answered with PUBREL.
            (Packet::PubRec(ack), QoS::ExactlyOnce) if ack.reason.is_error() => {
                let due_ns = in_flight.settle(ack.packet_id).ok_or_else(unexpected)?;
                self.settled(ack, due_ns, moment);
            }
            (Packet::PubRec(ack), QoS::ExactlyOnce) => {
                in_flight.received(ack.packet_id).ok_or_else(unexpected)?;
                let release = Packet::PubRel(Ack::success(ack.packet_id));
                encode(&release, self.shared.target.version, output);
            }
            (Packet::PubComp(ack), QoS::ExactlyOnce) => {
                let due_ns = in_flight.complete(ack.packet_id).ok_or_else(unexpected)?;
                self.settled(ack, due_ns, moment);
            }
            (other, _) => return Err(Fault::Unexpected(other.kind())),
        }
        Ok(())
    }

    fn fill(&mut self, output: &mut Vec<u8>, moment: &mut Moment<'_>) -> Next {
        match (moment.phase, self.state) {
            (Phase::Running(interval), State::Sending { .. }) => self.send(interval, output, moment),
            (Phase::Connecting, _) => Next::Event,
            (Phase::Running(_), State::Settling | State::Finished) => {
                self.settle(output, moment);
                Next::Event
            }
            (Phase::Draining { end_ns }, _) => {
                self.stop(end_ns, moment.tally);
                self.settle(output, moment);
                Next::Event
            }
            (Phase::Closing, _) => Next::Leave,
        }
    }

    fn is_ready(&self) -> Ready {
        Ready::Yes
    }

    fn finish(self, tally: &mut Tally) {
        if self.state != State::Finished {
            tally.news.finished += 1;
        }
        tally.taken.push((self.index, self.taken));
    }
}
