//! A subscriber: counts what arrives, acknowledges it, and checks it if the messages are this run's own.

use std::sync::Arc;

use super::{
    account::Stream,
    fault::Fault,
    payload::{Found, Stamp},
    role::{Moment, Next, Phase, Ready, Role, Shared},
    tally::Tally,
};
use crate::codec::{
    Ack, Delivery, Packet, PacketId, Publish, SubAck, Subscribe, SubscribeFilters, SubscribeProperties,
    SubscriptionOptions, encode,
};

/// A client that subscribes.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    filter: String,
    state: State,
    /// What arrived, by publisher; empty if the messages are not this run's own.
    streams: Vec<Stream>,
    /// The number of the first of these publishers.
    first_publisher: u32,
    /// Deliveries that a publisher is not yet told of. They come in runs, and it is told once for each.
    untold: (u32, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Subscribed,
}

impl Subscriber {
    pub(super) fn new(shared: &Arc<Shared>, index: u32) -> Self {
        let load = &shared.load;
        let sources = load.sources(index);
        let streams = if load.fan_out() > 0 { vec![Stream::default(); sources.len()] } else { Vec::new() };
        Self {
            shared: Arc::clone(shared),
            filter: load.filter(index),
            state: State::New,
            streams,
            first_publisher: sources.start,
            untold: (sources.start, 0),
        }
    }

    fn subscribe(&mut self, output: &mut Vec<u8>) {
        let options =
            SubscriptionOptions { qos: self.shared.load.manner.qos, ..SubscriptionOptions::default() };
        let list = [(self.filter.as_str(), options)];
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        encode(&Packet::Subscribe(subscribe), self.shared.target.version, output);
        self.state = State::Asked;
    }

    fn subscribed(&mut self, suback: &SubAck<'_>) -> Result<(), Fault> {
        let wanted = self.shared.load.manner.qos as u8;
        match suback.codes.first() {
            Some(&code) if code >= 0x80 => Err(Fault::SubscriptionRefused(code)),
            Some(&code) if code < wanted => Err(Fault::QoSReduced(code)),
            _ => {
                self.state = State::Subscribed;
                Ok(())
            }
        }
    }

    fn receive(&mut self, publish: &Publish<'_>, output: &mut Vec<u8>, moment: &mut Moment<'_>) {
        moment.tally.news.received += 1;
        moment.tally.news.received_bytes += publish.payload.len() as u64;
        let version = self.shared.target.version;
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => encode(&Packet::PubAck(Ack::success(id)), version, output),
            Delivery::ExactlyOnce(id) => encode(&Packet::PubRec(Ack::success(id)), version, output),
        }
        if self.streams.is_empty() {
            return;
        }
        match self.shared.load.content.check(publish.payload) {
            Found::Ours(stamp) => self.account(&stamp, moment),
            Found::Foreign => moment.tally.foreign += 1,
            Found::Altered => moment.tally.altered += 1,
        }
    }

    fn account(&mut self, stamp: &Stamp, moment: &mut Moment<'_>) {
        let place = stamp.publisher.checked_sub(self.first_publisher);
        let Some(stream) = place.and_then(|place| self.streams.get_mut(place as usize)) else {
            // A stamp of ours that did not belong here.
            moment.tally.altered += 1;
            return;
        };
        let distinct = stream.distinct;
        let moved = stream.take(stamp.sequence);
        moment.tally.news.delivered += stream.distinct - distinct;
        if stamp.due_ns >= moment.measured_ns {
            let from_due_ns = moment.now_ns.saturating_sub(stamp.due_ns);
            let delay_ns = u64::from(stamp.delay_us) * 1000;
            moment.tally.from_due.record(from_due_ns);
            moment.tally.from_send.record(from_due_ns.saturating_sub(delay_ns));
        }
        // By the highest number: what is lost gives room for more, or else a closed loop would end with it.
        if self.untold.0 != stamp.publisher {
            self.tell();
            self.untold.0 = stamp.publisher;
        }
        self.untold.1 += moved;
    }

    /// Tells the publisher that its messages have arrived.
    fn tell(&mut self) {
        let (publisher, count) = self.untold;
        if count > 0
            && let Some(flow) = self.shared.flows.get(publisher as usize)
        {
            flow.deliver(count);
        }
        self.untold.1 = 0;
    }
}

impl Role for Subscriber {
    #[inline]
    fn take(
        &mut self,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
        moment: &mut Moment<'_>,
    ) -> Result<(), Fault> {
        match packet {
            Packet::Publish(publish) => self.receive(publish, output, moment),
            Packet::PubRel(ack) => {
                encode(&Packet::PubComp(Ack::success(ack.packet_id)), self.shared.target.version, output);
            }
            Packet::SubAck(suback) if self.state == State::Asked => self.subscribed(suback)?,
            other => return Err(Fault::Unexpected(other.kind())),
        }
        Ok(())
    }

    fn end_of_read(&mut self) {
        self.tell();
    }

    fn fill(&mut self, output: &mut Vec<u8>, moment: &mut Moment<'_>) -> Next {
        if moment.phase == Phase::Closing {
            return Next::Leave;
        }
        if self.state == State::New {
            self.subscribe(output);
        }
        Next::Event
    }

    fn is_ready(&self) -> Ready {
        if self.state == State::Subscribed { Ready::Yes } else { Ready::NotYet }
    }

    fn finish(self, tally: &mut Tally) {
        let publishers = self.first_publisher..;
        tally.arrived.extend(publishers.zip(self.streams.iter().map(Into::into)));
    }
}
