//! A thread of the run with its share of the connections, and the loop that each connection is in.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime,
    sync::{Semaphore, watch},
    task::{JoinSet, LocalSet},
    time::timeout,
};

use super::{
    connection::{Allowed, Link},
    fault::Fault,
    load::{Connecting, Mode, Work},
    pacer::{Alarm, First, Pacer},
    publisher::Publisher,
    role::{Holder, Moment, Next, Phase, Ready, Role, Shared},
    schedule::{Arrivals, Schedule},
    subscriber::Subscriber,
    tally::{Counts, Meter, Tally},
};
use crate::codec::{Packet, encode};

/// Turns of a connection before the others of its thread have theirs.
const TURNS_MAX: u32 = 8;
/// How long connections may take to end together, after which they are dropped.
const END_TIMEOUT: Duration = Duration::from_secs(4);

/// What a thread hands in.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) tally: Tally,
    /// The part of the time of the run in which the thread was on a processor.
    pub(super) busy: f64,
}

/// What the connections of a thread share.
struct Lane {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    phase: Cell<Phase>,
    /// From when on messages are measured; known once the run has begun.
    measured_ns: Cell<u64>,
    pacer: RefCell<Pacer>,
    alarm: Alarm,
    tally: RefCell<Tally>,
    /// Connections that may be in the making, if that is limited.
    permits: Semaphore,
    busy: Cell<Busy>,
}

/// The processor time of a thread in the run.
#[derive(Clone, Copy, Debug)]
enum Busy {
    NotYet,
    Since { cpu_ns: u64, clock_ns: u64 },
    Was(f64),
}

/// Does the work of a thread until the phase is `Closing` and all is closed.
///
/// # Errors
/// If the system has no timer or no poll for us.
pub(super) fn run(
    thread: u32,
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    phases: watch::Receiver<Phase>,
) -> io::Result<Share> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let permits = match shared.load.connecting {
            // At least one, so that each thread makes headway.
            Connecting::AtOnce(count) => count.div_ceil(shared.load.threads).max(1) as usize,
            Connecting::Rate(_) => Semaphore::MAX_PERMITS,
        };
        let lane = Rc::new(Lane {
            shared,
            meter,
            phase: Cell::new(Phase::Connecting),
            measured_ns: Cell::new(u64::MAX),
            pacer: RefCell::default(),
            alarm: Alarm::new()?,
            tally: RefCell::default(),
            permits: Semaphore::new(permits),
            busy: Cell::new(Busy::NotYet),
        });
        LocalSet::new().run_until(lane.clone().work(thread, phases)).await?;
        let busy = match lane.busy.get() {
            Busy::Was(busy) => busy,
            Busy::NotYet | Busy::Since { .. } => 0.0,
        };
        Ok(Share { tally: lane.tally.take(), busy })
    })
}

impl Lane {
    async fn work(self: Rc<Self>, thread: u32, mut phases: watch::Receiver<Phase>) -> io::Result<()> {
        if self.shared.load.mode == Mode::Connect {
            self.busy.set(self.busy_since_now());
        }
        let mut tasks = JoinSet::new();
        for work in self.shared.load.work_of(thread) {
            let number = self.pacer.borrow_mut().enter();
            tasks.spawn_local(Rc::clone(&self).client(work, number));
        }
        loop {
            tokio::select! {
                changed = phases.changed() => {
                    // Who leads the run is gone only if it failed, and then there is nothing to report to.
                    let phase = if changed.is_ok() { *phases.borrow_and_update() } else { Phase::Closing };
                    self.enter(phase);
                    if phase == Phase::Closing {
                        break;
                    }
                }
                rung = poll_fn(|context| self.alarm.poll(context)) => {
                    rung?;
                    self.wake_due()?;
                }
            }
        }
        // Closing waits for the broker, and a connection in the making for nothing that we need.
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(END_TIMEOUT, ended).await;
        Ok(())
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if let Phase::Running(interval) = phase {
            self.measured_ns.set(interval.measured_ns);
        }
        match (phase, self.busy.get()) {
            (Phase::Running(_), Busy::NotYet) => self.busy.set(self.busy_since_now()),
            // A storm of connections is over when the connections are held.
            (
                Phase::Running(_) | Phase::Draining { .. } | Phase::Closing,
                Busy::Since { cpu_ns, clock_ns },
            ) => {
                let elapsed_ns = self.now_ns().saturating_sub(clock_ns).max(1);
                self.busy.set(Busy::Was(thread_ns().saturating_sub(cpu_ns) as f64 / elapsed_ns as f64));
            }
            (_, Busy::NotYet | Busy::Since { .. } | Busy::Was(_)) => {}
        }
        if phase == Phase::Closing {
            self.permits.close();
        }
        self.pacer.borrow().wake_all();
    }

    fn busy_since_now(&self) -> Busy {
        Busy::Since { cpu_ns: thread_ns(), clock_ns: self.now_ns() }
    }

    fn wake_due(&self) -> io::Result<()> {
        let now_ns = self.now_ns();
        let next_ns = self.pacer.borrow_mut().wake(now_ns);
        next_ns.map_or(Ok(()), |next_ns| self.alarm.set(next_ns - now_ns))
    }

    fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// Wakes a task at a time.
    fn arm(&self, number: u32, due_ns: u64, now_ns: u64, context: &Context<'_>) -> Result<(), Fault> {
        let first = self.pacer.borrow_mut().arm(number, due_ns, context.waker());
        match first {
            First::Yes => self.alarm.set(due_ns.saturating_sub(now_ns)).map_err(|error| Fault::io(&error)),
            First::No => Ok(()),
        }
    }

    /// One client from its connection to its end.
    async fn client(self: Rc<Self>, work: Work, number: u32) {
        let (link, allowed) = match self.connect(work, number).await {
            Ok(Some(connected)) => connected,
            Ok(None) => return self.never_ready(work),
            Err(fault) => {
                self.tally.borrow_mut().failures.count(fault);
                return self.never_ready(work);
            }
        };
        let keep_alive = KeepAlive::new(allowed.keep_alive_secs, self.now_ns());
        match work {
            Work::Publish(publisher) => match Publisher::new(&self.shared, publisher, &allowed) {
                Ok(role) => self.drive(link, role, keep_alive, number).await,
                Err(fault) => {
                    self.tally.borrow_mut().failures.count(fault);
                    self.never_ready(work);
                    link.close().await;
                }
            },
            Work::Subscribe(subscriber) => {
                let role = Subscriber::new(&self.shared, subscriber);
                self.drive(link, role, keep_alive, number).await;
            }
            Work::Hold(_) => self.drive(link, Holder, keep_alive, number).await,
        }
    }

    fn never_ready(&self, work: Work) {
        let finished = u64::from(matches!(work, Work::Publish(_)));
        let mut news = Counts { failed: 1, finished, ..Counts::default() };
        self.meter.add(&mut news, self.now_ns());
    }

    /// Connects when it is this client's turn; `None` if the run ends before.
    async fn connect(&self, work: Work, number: u32) -> Result<Option<(Link, Allowed)>, Fault> {
        let Shared { load, target, .. } = &*self.shared;
        if let Connecting::Rate(rate) = load.connecting {
            let client = work.number();
            let due_ns = Schedule::new(Arrivals::Constant, rate, client, load.clients(), load.seed).due_ns();
            self.sleep_until(due_ns, number).await?;
        }
        let Ok(_permit) = self.permits.acquire().await else { return Ok(None) };
        if self.phase.get() == Phase::Closing {
            return Ok(None);
        }
        let start_ns = self.now_ns();
        let connected = target.connect(&load.client_id(work)).await?;
        let now_ns = self.now_ns();
        let mut tally = self.tally.borrow_mut();
        tally.connected.record(now_ns - start_ns);
        tally.last_connect_ns = now_ns;
        Ok(Some(connected))
    }

    async fn sleep_until(&self, due_ns: u64, number: u32) -> Result<(), Fault> {
        poll_fn(|context| {
            let now_ns = self.now_ns();
            if now_ns >= due_ns || self.phase.get() == Phase::Closing {
                return Poll::Ready(Ok(()));
            }
            self.arm(number, due_ns, now_ns, context)?;
            Poll::Pending
        })
        .await
    }

    /// Lets a role use a connection until one of them ends.
    async fn drive<R: Role>(&self, link: Link, role: R, keep_alive: KeepAlive, number: u32) {
        let mut driver = Driver { lane: self, link, role, keep_alive, number, ready: Ready::NotYet };
        let end = poll_fn(|context| driver.poll(context)).await;
        let Driver { link, role, ready, .. } = driver;
        {
            let mut tally = self.tally.borrow_mut();
            match (&end, ready) {
                (Ok(()), _) => {}
                (Err(fault), Ready::NotYet) => {
                    tally.failures.count(fault);
                    tally.news.failed += 1;
                }
                (Err(fault), Ready::Yes) => {
                    tally.endings.count(fault);
                    tally.news.ended += 1;
                }
            }
            role.finish(&mut tally);
            self.meter.add(&mut tally.news, self.now_ns());
        }
        if end.is_ok() {
            link.close().await;
        }
    }
}

/// A connection and its role, stepped whenever something happened.
struct Driver<'a, R> {
    lane: &'a Lane,
    link: Link,
    role: R,
    keep_alive: KeepAlive,
    /// Its place in the pacer.
    number: u32,
    ready: Ready,
}

/// What a turn came to.
enum Turn {
    Progress,
    Wait,
    Leave,
}

impl<R: Role> Driver<'_, R> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        for _ in 0..TURNS_MAX {
            match self.turn(context)? {
                Turn::Progress => {}
                Turn::Wait => return Poll::Pending,
                Turn::Leave => return Poll::Ready(Ok(())),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, lets the role answer and send, writes once.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<Turn, Fault> {
        let Self { lane, link, role, keep_alive, .. } = self;
        let read = link.poll_read(context)?.is_ready();
        let now_ns = lane.now_ns();
        let tally = &mut *lane.tally.borrow_mut();
        let (phase, measured_ns) = (lane.phase.get(), lane.measured_ns.get());
        let mut moment = Moment { now_ns, phase, measured_ns, tally, waker: context.waker() };
        if read {
            let taken = link.packets(|packet, output| match &packet {
                Packet::PingResp => keep_alive.answered(),
                Packet::Disconnect(disconnect) => Err(Fault::Disconnected(disconnect.reason)),
                packet => role.take(packet, output, &mut moment),
            });
            role.end_of_read();
            taken?;
        }
        let next = role.fill(&mut link.output, &mut moment);
        keep_alive.fill(&mut link.output, now_ns, lane)?;
        let wrote = link.has_output() && link.poll_write(context)?.is_ready();
        if self.ready == Ready::NotYet && role.is_ready() == Ready::Yes {
            self.ready = Ready::Yes;
            moment.tally.news.ready += 1;
        }
        lane.meter.add(&mut moment.tally.news, now_ns);
        let due_ns = match next {
            Next::Leave => return Ok(Turn::Leave),
            Next::At(due_ns) => due_ns.min(keep_alive.due_ns),
            Next::Event => keep_alive.due_ns,
        };
        if read || wrote {
            return Ok(Turn::Progress);
        }
        // Armed even if nothing is ever due, for that is how a change of the phase wakes it.
        lane.arm(self.number, due_ns, now_ns, context)?;
        Ok(Turn::Wait)
    }
}

/// When the broker must hear of a client that has nothing to say.
struct KeepAlive {
    /// `u64::MAX` if it need not.
    interval_ns: u64,
    due_ns: u64,
    state: Ping,
}

#[derive(PartialEq)]
enum Ping {
    Quiet,
    Sent,
}

impl KeepAlive {
    fn new(secs: u16, now_ns: u64) -> Self {
        // Three quarters, so that a thread that is busy is not late.
        let interval_ns = if secs == 0 { u64::MAX } else { u64::from(secs) * 750_000_000 };
        Self { interval_ns, due_ns: now_ns.saturating_add(interval_ns), state: Ping::Quiet }
    }

    fn answered(&mut self) -> Result<(), Fault> {
        self.state = Ping::Quiet;
        Ok(())
    }

    /// Adds a PINGREQ if nothing else was sent for so long.
    fn fill(&mut self, output: &mut Vec<u8>, now_ns: u64, lane: &Lane) -> Result<(), Fault> {
        if self.due_ns == u64::MAX || output.is_empty() && now_ns < self.due_ns {
            return Ok(());
        }
        if output.is_empty() {
            if self.state == Ping::Sent {
                return Err(Fault::PingTimeout);
            }
            self.state = Ping::Sent;
            encode(&Packet::PingReq, lane.shared.target.version, output);
        }
        self.due_ns = now_ns.saturating_add(self.interval_ns);
        Ok(())
    }
}

/// The processor time of this thread.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    secs * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
