//! Those who subscribe: sessions that go on over many connections, members of a group, passing guests, and one
//! who looks at what is retained.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, time::Duration};

use dunlin::{
    codec::{Delivery, PacketId, PacketKind, QoS, ReasonCode},
    topic::TopicFilter,
};
use tokio::time::{Instant, sleep};

use crate::{
    connection::{Connection, Gone, Got, Keeps, PATIENCE, Who},
    ledger::{Group, Ledger, Phase, Since, Tracker, number_of},
    publish::retained_topic,
};

/// How often a subscriber looks at what part of the run it is.
const TICK: Duration = Duration::from_secs(1);

/// What a subscriber does between connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Habit {
    /// There is one connection.
    Stays,
    /// It ends every few seconds, in all possible ways, and the client is back at once.
    Flaps,
    /// The client is away for longer than it is there.
    Sleeps,
    /// The client comes back when its session has ended, or with a session that ends with its connection.
    Forgets,
}

/// Where what was received is written down.
pub(crate) enum Account {
    Own(Tracker),
    Group(Rc<RefCell<Group>>),
}

/// A subscription of one session, which goes on over connections.
pub(crate) struct Subscriber {
    who: Who,
    filter: String,
    qos: QoS,
    habit: Habit,
    account: Account,
    /// QoS 2 messages that are not released yet.
    unreleased: BTreeSet<PacketId>,
    is_subscribed: bool,
    connections: u64,
}

impl Subscriber {
    /// One that has to get everything, unless its habit is to forget.
    pub(crate) fn new(ledger: &Ledger, who: Who, filter: &str, qos: QoS, habit: Habit) -> Subscriber {
        let since = if habit == Habit::Forgets { Since::Any } else { Since::First };
        let account = Account::Own(Tracker::new(ledger, filter, qos, since));
        Subscriber::with(ledger, who, filter, qos, habit, account)
    }

    /// A member of a shared subscription, which together have to get everything.
    pub(crate) fn member(
        ledger: &Ledger,
        who: Who,
        filter: &str,
        habit: Habit,
        group: &Rc<RefCell<Group>>,
    ) -> Subscriber {
        Subscriber::with(ledger, who, filter, QoS::ExactlyOnce, habit, Account::Group(group.clone()))
    }

    fn with(ledger: &Ledger, who: Who, filter: &str, qos: QoS, habit: Habit, account: Account) -> Subscriber {
        ledger.awaited.set(ledger.awaited.get() + 1);
        ledger.subscribers.set(ledger.subscribers.get() + 1);
        let (filter, unreleased) = (filter.into(), BTreeSet::new());
        Subscriber { who, filter, qos, habit, account, unreleased, is_subscribed: false, connections: 0 }
    }

    pub(crate) async fn run(mut self, ledger: Rc<Ledger>) {
        loop {
            match self.visits(&ledger).await {
                Ok(()) => break,
                Err(Gone(why)) => ledger.fail(format_args!("{}: {why}", self.who.id)),
            }
            sleep(TICK).await;
        }
        ledger.subscribers.set(ledger.subscribers.get() - 1);
    }

    async fn visits(&mut self, ledger: &Ledger) -> Result<(), Gone> {
        let mut connection = self.open(ledger).await?;
        let mut deadline = None;
        loop {
            let until = Instant::now() + self.stay(ledger);
            while Instant::now() < until {
                self.visit(&mut connection, ledger).await?;
                if ledger.phase.get() == Phase::Draining {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + 2 * PATIENCE);
                    if self.is_done(ledger, deadline) {
                        return connection.disconnect(ReasonCode::Success).await;
                    }
                }
            }
            connection = self.change_over(connection, ledger).await?;
        }
    }

    /// Ends the connection in one way or another, and makes a new one, after a while or before that.
    async fn change_over(&mut self, connection: Connection, ledger: &Ledger) -> Result<Connection, Gone> {
        match ledger.below(3) {
            0 => connection.disconnect(ReasonCode::Success).await?,
            1 => drop(connection),
            _ if matches!(self.habit, Habit::Forgets) => connection.disconnect(ReasonCode::Success).await?,
            _ => {
                ledger.count(|counts| counts.takeovers += 1);
                let newer = self.open(ledger).await?;
                connection.expect_close().await?;
                return Ok(newer);
            }
        }
        sleep(self.away(ledger)).await;
        self.open(ledger).await
    }

    /// How long a connection is used.
    fn stay(&self, ledger: &Ledger) -> Duration {
        Duration::from_millis(match self.habit {
            Habit::Stays => u64::from(u32::MAX),
            Habit::Flaps => 500 + ledger.below(6000),
            Habit::Sleeps => 2000 + ledger.below(4000),
            Habit::Forgets => 2000 + ledger.below(8000),
        })
    }

    /// How long there is no connection.
    fn away(&self, ledger: &Ledger) -> Duration {
        let millis = match (self.habit, self.who.keeps) {
            (Habit::Stays | Habit::Flaps, _) => ledger.below(300),
            (Habit::Sleeps, _) => 5000 + ledger.below(20_000),
            (Habit::Forgets, Keeps::Nothing) => ledger.below(2000),
            // Expiry is not said to be on time.
            (Habit::Forgets, Keeps::Secs(secs)) => 1000 * u64::from(secs) + 2000,
        };
        Duration::from_millis(millis)
    }

    async fn open(&mut self, ledger: &Ledger) -> Result<Connection, Gone> {
        let mut connection = Connection::open(&self.who, None).await?;
        ledger.count(|counts| counts.connects += 1);
        if self.who.keeps != Keeps::Nothing {
            ledger.durable.borrow_mut().insert(self.who.id.clone());
        }
        let must_be_present = self.connections > 0 && self.habit != Habit::Forgets;
        if connection.session_present != must_be_present {
            let present = connection.session_present;
            ledger.fail(format_args!("{}: Session Present is {present}", self.who.id));
        }
        self.connections += 1;
        if !connection.session_present {
            self.begin(ledger);
            ledger.count(|counts| counts.subscribes += 1);
            connection.subscribe(&self.filter, self.qos);
        }
        connection.flush().await?;
        Ok(connection)
    }

    /// The session is a new one.
    fn begin(&mut self, ledger: &Ledger) {
        self.unreleased.clear();
        if self.connections > 1 {
            ledger.count(|counts| counts.expired += 1);
            if let Account::Own(tracker) = &mut self.account {
                tracker.forget();
            }
        }
    }

    async fn visit(&mut self, connection: &mut Connection, ledger: &Ledger) -> Result<(), Gone> {
        for got in connection.read(Instant::now() + TICK).await? {
            self.hear(connection, got, ledger)?;
        }
        connection.flush().await
    }

    fn hear(&mut self, connection: &mut Connection, got: Got, ledger: &Ledger) -> Result<(), Gone> {
        match got {
            Got::SubAck => {
                if !std::mem::replace(&mut self.is_subscribed, true) {
                    ledger.awaited.set(ledger.awaited.get() - 1);
                }
            }
            Got::Publish { topic, payload, delivery, .. } => {
                if acknowledge(connection, delivery, &mut self.unreleased) {
                    self.take(ledger, &topic, &payload);
                }
            }
            Got::Ack { kind: PacketKind::PubRel, id, .. } => {
                self.unreleased.remove(&id);
                connection.ack(PacketKind::PubComp, id);
            }
            Got::PingResp => {}
            other => return Err(Gone(format!("{other:?} for a subscriber"))),
        }
        Ok(())
    }

    fn take(&mut self, ledger: &Ledger, topic: &str, payload: &[u8]) {
        let Some(number) = number_of(payload) else { return };
        match (ledger.flow_of(topic), &mut self.account) {
            (Some(flow), Account::Own(tracker)) => tracker.take(ledger, &self.who.id, flow, number),
            (Some(flow), Account::Group(group)) => group.borrow_mut().take(ledger, flow, number),
            // Others see wills as well; each comes once to this one.
            (None, _) if self.filter == "wills/#" => ledger.take_will(number),
            (None, _) => ledger.count(|counts| counts.delivered += 1),
        }
    }

    /// Whether everything has come, or should have.
    fn is_done(&self, ledger: &Ledger, deadline: Instant) -> bool {
        let mut missing = match &self.account {
            Account::Own(tracker) => tracker.missing(ledger),
            Account::Group(group) => group.borrow().missing(ledger),
        };
        if self.filter == "wills/#" && ledger.wills_due() > 0 {
            missing.push(format!("{} wills", ledger.wills_due()));
        }
        if !missing.is_empty() && Instant::now() >= deadline {
            ledger.fail(format_args!("{} never got {}", self.who.id, missing.join(", ")));
            return true;
        }
        missing.is_empty()
    }
}

/// Acknowledges a message. Returns whether it is a new one.
fn acknowledge(connection: &mut Connection, delivery: Delivery, unreleased: &mut BTreeSet<PacketId>) -> bool {
    match delivery {
        Delivery::AtMostOnce => true,
        Delivery::AtLeastOnce(id) => {
            connection.ack(PacketKind::PubAck, id);
            true
        }
        Delivery::ExactlyOnce(id) => {
            connection.ack(PacketKind::PubRec, id);
            unreleased.insert(id)
        }
    }
}

/// Comes and goes with one subscription after the other, each of which has to be without gaps.
pub(crate) async fn be_guest(who: Who, ledger: Rc<Ledger>) {
    while ledger.phase.get() < Phase::Ending {
        if let Err(Gone(why)) = visit_as_guest(&who, &ledger).await {
            ledger.fail(format_args!("{}: {why}", who.id));
        }
        sleep(Duration::from_millis(100 + ledger.below(400))).await;
    }
    ledger.busy.set(ledger.busy.get() - 1);
}

async fn visit_as_guest(who: &Who, ledger: &Ledger) -> Result<(), Gone> {
    const FIRST: [&str; 3] = ["flow/#", "flow/+/q1", "flow/+/q2"];
    const SECOND: [&str; 4] = ["+/+/q1", "flow/5/#", "state/+", "$share/guests/flow/+/q1"];
    let mut connection = Connection::open(who, None).await?;
    ledger.count(|counts| counts.connects += 1);
    let mut former: Option<TopicFilter> = None;
    for filters in [&FIRST[..], &SECOND[..]] {
        let filter = filters[ledger.below(filters.len() as u64) as usize];
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][ledger.below(3) as usize];
        ledger.count(|counts| counts.subscribes += 1);
        connection.subscribe(filter, qos);
        let mut tracker = Tracker::new(ledger, filter, qos, Since::Any);
        if let Some(former) = former.replace(tracker.filter().clone()) {
            tracker.allow_leftovers(ledger, &former);
        }
        // Other guests get the rest of what is shared.
        let tracker = (!filter.starts_with("$share/")).then_some(tracker);
        let mut stay = Stay { tracker, unreleased: BTreeSet::new(), has_left: false };
        let until = Instant::now() + Duration::from_millis(100 + ledger.below(900));
        while Instant::now() < until {
            stay.listen(&mut connection, until, &who.id, ledger).await?;
        }
        connection.unsubscribe(filter);
        let deadline = Instant::now() + PATIENCE;
        while !stay.has_left {
            stay.listen(&mut connection, deadline, &who.id, ledger).await?;
            if Instant::now() >= deadline {
                return Err(Gone("no UNSUBACK came".into()));
            }
        }
    }
    if ledger.below(2) == 0 {
        return connection.disconnect(ReasonCode::Success).await;
    }
    Ok(())
}

/// A subscription of a guest.
struct Stay {
    tracker: Option<Tracker>,
    unreleased: BTreeSet<PacketId>,
    /// UNSUBACK has come.
    has_left: bool,
}

impl Stay {
    /// Takes in what comes next.
    async fn listen(
        &mut self,
        connection: &mut Connection,
        until: Instant,
        id: &str,
        ledger: &Ledger,
    ) -> Result<(), Gone> {
        for got in connection.read(until).await? {
            match got {
                Got::Publish { topic, payload, delivery, .. } => {
                    let is_new = acknowledge(connection, delivery, &mut self.unreleased);
                    let message = number_of(&payload).zip(ledger.flow_of(&topic)).filter(|_| is_new);
                    if let (Some(tracker), Some((number, flow))) = (&mut self.tracker, message) {
                        tracker.take(ledger, id, flow, number);
                    }
                }
                Got::Ack { id, .. } => {
                    self.unreleased.remove(&id);
                    connection.ack(PacketKind::PubComp, id);
                }
                Got::UnsubAck => self.has_left = true,
                Got::SubAck | Got::PingResp => {}
            }
        }
        Ok(())
    }
}

/// Looks now and then whether a new subscription gets the retained messages that it must.
pub(crate) async fn audit_retained(who: Who, ledger: Rc<Ledger>) {
    while ledger.phase.get() < Phase::Ending {
        if let Err(Gone(why)) = audit(&who, &ledger).await {
            ledger.fail(format_args!("{}: {why}", who.id));
        }
        sleep(Duration::from_secs(5)).await;
    }
    ledger.busy.set(ledger.busy.get() - 1);
}

async fn audit(who: &Who, ledger: &Ledger) -> Result<(), Gone> {
    let mut connection = Connection::open(who, None).await?;
    ledger.count(|counts| counts.connects += 1);
    let before = ledger.retained.borrow().clone();
    connection.subscribe("state/#", QoS::AtLeastOnce);
    let mut seen = vec![None; before.len()];
    let deadline = Instant::now() + PATIENCE;
    loop {
        for got in connection.read(Instant::now() + TICK).await? {
            if let Got::Publish { topic, payload, delivery, retain } = got {
                acknowledge(&mut connection, delivery, &mut BTreeSet::new());
                let at = (0..before.len()).find(|at| retained_topic(*at) == topic);
                if let Some(at) = at.filter(|_| retain) {
                    seen[at] = number_of(&payload);
                }
            }
        }
        let now = ledger.retained.borrow().clone();
        // Of a topic that changes meanwhile nobody can tell which value is to come.
        let unchanged = |at: &usize| now[*at].number == before[*at].number && !before[*at].is_changing;
        let wrong: Vec<usize> = (0..before.len())
            .filter(unchanged)
            .filter(|at| !now[*at].is_changing)
            .filter(|at| seen[*at] != before[*at].is_set.then_some(before[*at].number))
            .collect();
        if wrong.is_empty() {
            ledger.count(|counts| counts.audits += 1);
            return connection.disconnect(ReasonCode::Success).await;
        }
        if Instant::now() >= deadline {
            return Err(Gone(format!("retained messages that are not as they were: {wrong:?}")));
        }
    }
}
