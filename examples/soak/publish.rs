//! Those who publish: numbers to a flow each, over any number of connections, and retained messages.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use dunlin::codec::{Delivery, PacketId, PacketKind, QoS, ReasonCode};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    connection::{Connection, Gone, Got, Marks, PATIENCE, Who},
    ledger::{Ledger, Phase, RETAINED_TOPICS, payload_of},
};

/// Time between two bursts of a publisher.
const TICK: Duration = Duration::from_millis(50);

/// Messages of a publisher that are not acknowledged at a time.
const WINDOW: usize = 200;

/// Publishes to a flow until the end, and then until all of it is acknowledged.
pub(crate) struct Publisher {
    pub(crate) who: Who,
    pub(crate) flow: usize,
    /// Messages of each burst.
    pub(crate) burst: u64,
    inflight: VecDeque<Inflight>,
    connections: u64,
}

struct Inflight {
    id: PacketId,
    number: u64,
    is_received: bool,
}

impl Publisher {
    pub(crate) fn new(who: Who, flow: usize, burst: u64) -> Publisher {
        Publisher { who, flow, burst, inflight: VecDeque::new(), connections: 0 }
    }

    pub(crate) async fn run(mut self, ledger: Rc<Ledger>) {
        while ledger.phase.get() == Phase::Starting {
            sleep(TICK).await;
        }
        loop {
            match self.visits(&ledger).await {
                Ok(()) => break,
                Err(Gone(why)) => ledger.fail(format_args!("{}: {why}", self.who.id)),
            }
            sleep(Duration::from_secs(1)).await;
        }
        ledger.busy.set(ledger.busy.get() - 1);
    }

    /// Connections, one after the other or one over the other, until the end.
    async fn visits(&mut self, ledger: &Rc<Ledger>) -> Result<(), Gone> {
        let mut connection = self.open(ledger).await?;
        loop {
            self.visit(&mut connection, ledger).await?;
            if ledger.phase.get() >= Phase::Ending && self.inflight.is_empty() {
                return connection.disconnect(ReasonCode::Success).await;
            }
            let away = Duration::from_millis(ledger.below(2000));
            match ledger.below(3) {
                0 => {
                    connection.disconnect(ReasonCode::Success).await?;
                    sleep(away).await;
                }
                1 => {
                    drop(connection);
                    sleep(away).await;
                }
                _ => {
                    ledger.count(|counts| counts.takeovers += 1);
                    let older = std::mem::replace(&mut connection, self.open(ledger).await?);
                    older.expect_close().await?;
                    continue;
                }
            }
            connection = self.open(ledger).await?;
        }
    }

    /// Connects, and sends again what was not acknowledged.
    async fn open(&mut self, ledger: &Ledger) -> Result<Connection, Gone> {
        let mut connection = Connection::open(&self.who, None).await?;
        ledger.count(|counts| counts.connects += 1);
        if self.connections > 0 && !connection.session_present {
            ledger.fail(format_args!("the session of {} is lost", self.who.id));
        }
        self.connections += 1;
        for sent in &self.inflight {
            match sent.is_received {
                true => connection.ack(PacketKind::PubRel, sent.id),
                false => self.publish(ledger, &mut connection, sent.id, sent.number, Marks::Again),
            }
        }
        connection.flush().await?;
        Ok(connection)
    }

    /// Uses a connection for a while, or until nothing is left to do.
    async fn visit(&mut self, connection: &mut Connection, ledger: &Ledger) -> Result<(), Gone> {
        let until = Instant::now() + Duration::from_millis(10_000 + ledger.below(40_000));
        let mut tick = Instant::now();
        loop {
            let is_ending = ledger.phase.get() >= Phase::Ending;
            if is_ending && self.inflight.is_empty() || !is_ending && Instant::now() >= until {
                return Ok(());
            }
            if Instant::now() >= tick {
                tick += TICK;
                self.send_burst(connection, ledger);
            }
            for got in connection.read(tick).await? {
                self.hear(connection, got)?;
            }
        }
    }

    fn send_burst(&mut self, connection: &mut Connection, ledger: &Ledger) {
        if ledger.phase.get() >= Phase::Ending {
            return;
        }
        let flow = &ledger.flows[self.flow];
        for _ in 0..self.burst {
            if self.inflight.len() >= WINDOW {
                break;
            }
            let number = flow.next.replace(flow.next.get() + 1);
            let id = PacketId::MIN.saturating_add((number % 60_000) as u16);
            if flow.qos > QoS::AtMostOnce {
                self.inflight.push_back(Inflight { id, number, is_received: false });
            }
            self.publish(ledger, connection, id, number, Marks::None);
            ledger.count(|counts| counts.published += 1);
        }
    }

    fn publish(&self, ledger: &Ledger, connection: &mut Connection, id: PacketId, number: u64, marks: Marks) {
        let flow = &ledger.flows[self.flow];
        let delivery = match flow.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        connection.publish(&flow.topic, &payload_of(number), delivery, marks);
    }

    fn hear(&mut self, connection: &mut Connection, got: Got) -> Result<(), Gone> {
        let (kind, id, reason) = match got {
            Got::Ack { kind, id, reason } => (kind, id, reason),
            Got::PingResp => return Ok(()),
            other => return Err(Gone(format!("{other:?} for a publisher"))),
        };
        // The end of an exchange may have been lost with a connection: then the broker has forgotten it.
        if reason.is_error() && reason != ReasonCode::PacketIdentifierNotFound {
            return Err(Gone(format!("{kind} with {reason:?}")));
        }
        let Some(at) = self.inflight.iter().position(|sent| sent.id == id) else { return Ok(()) };
        if kind == PacketKind::PubRec {
            self.inflight[at].is_received = true;
            connection.ack(PacketKind::PubRel, id);
        } else {
            self.inflight.remove(at);
        }
        Ok(())
    }
}

/// The topic of a retained message.
pub(crate) fn retained_topic(at: usize) -> String {
    format!("state/{at}")
}

/// Changes retained messages one at a time, until the end, when it removes them all.
pub(crate) async fn keep_retained(who: Who, ledger: Rc<Ledger>) {
    if let Err(Gone(why)) = change_retained(&who, &ledger).await {
        ledger.fail(format_args!("{}: {why}", who.id));
    }
    ledger.busy.set(ledger.busy.get() - 1);
}

async fn change_retained(who: &Who, ledger: &Ledger) -> Result<(), Gone> {
    let mut connection = Connection::open(who, None).await?;
    let (mut number, mut tick) = (0, Instant::now());
    while ledger.phase.get() < Phase::Ending {
        tick += TICK;
        number += 1;
        let at = ledger.below(RETAINED_TOPICS as u64) as usize;
        // Some of the topics have none at any time.
        let payload = if ledger.below(8) == 0 { Vec::new() } else { payload_of(number) };
        change(&mut connection, ledger, at, number, &payload).await?;
        sleep_until(tick).await;
    }
    for at in 0..RETAINED_TOPICS {
        number += 1;
        change(&mut connection, ledger, at, number, b"").await?;
    }
    connection.disconnect(ReasonCode::Success).await
}

/// Changes one retained message, and waits for its acknowledgement.
async fn change(
    connection: &mut Connection,
    ledger: &Ledger,
    at: usize,
    number: u64,
    payload: &[u8],
) -> Result<(), Gone> {
    ledger.retained.borrow_mut()[at].is_changing = true;
    let id = PacketId::MIN.saturating_add((number % 60_000) as u16);
    connection.publish(&retained_topic(at), payload, Delivery::AtLeastOnce(id), Marks::Retained);
    ledger.count(|counts| counts.published += 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        for got in connection.read(deadline).await? {
            match got {
                Got::Ack { kind: PacketKind::PubAck, id: acked, reason }
                    if acked == id && !reason.is_error() =>
                {
                    let retained = &mut ledger.retained.borrow_mut()[at];
                    (retained.number, retained.is_set, retained.is_changing) =
                        (number, !payload.is_empty(), false);
                    return Ok(());
                }
                Got::PingResp => {}
                other => return Err(Gone(format!("{other:?} where PUBACK was expected"))),
            }
        }
        if Instant::now() >= deadline {
            return Err(Gone("no PUBACK came".into()));
        }
    }
}
