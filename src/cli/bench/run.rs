//! The course of a run: connect all, send, let what is under way arrive, close; and who is told about it.
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator is all shell: it makes threads, waits by the clock"
)]

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{runtime, signal::unix, sync::watch, time};

use super::{
    connection::Target,
    lane,
    load::{Load, Mode, Pace},
    role::{Clock, Interval, Phase, Shared},
    tally::{Counts, Meter, Tally},
    window::Flow,
};
use crate::cli::client::{Failure, explain_io};

/// How often it is looked whether a phase is over.
const TICK: Duration = Duration::from_millis(10);
const PROGRESS_NS: u64 = 1_000_000_000;
/// How long nothing may arrive before what is missing counts as lost.
const QUIET_NS: u64 = 2_000_000_000;
/// How long the last messages may take altogether.
const DRAIN_NS_MAX: u64 = 30_000_000_000;
/// How long a closed loop without a fixed duration may stand still.
const STALL_NS: u64 = 10_000_000_000;
/// How long duplicates are waited for when all has arrived.
const AFTERMATH_NS: u64 = 100_000_000;

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) counts: Counts,
    /// What happened in the measured part of the run.
    pub(super) measured: Counts,
    /// How long that was.
    pub(super) measured_ns: u64,
    pub(super) end: End,
    /// By thread, the part of the time that it was on a processor.
    pub(super) busy: Vec<f64>,
}

/// How sending came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// As it was meant, or by the user.
    #[default]
    Done,
    /// What was waited for did not come.
    Stalled,
}

/// Makes the threads, leads them through the run and collects their results.
pub(super) fn run(load: Load, target: Target) -> Result<Outcome, Failure> {
    let flows = if load.waits_for_subscribers() { load.publishers } else { 0 };
    let shared =
        Shared { flows: (0..flows).map(|_| Flow::default()).collect(), clock: Clock::start(), load, target };
    let shared = Arc::new(shared);
    let (phases, _) = watch::channel(Phase::Connecting);
    let failed = |error: io::Error| Failure::new(explain_io(&error));
    let mut meters = Vec::new();
    let mut threads = Vec::new();
    for number in 0..shared.load.threads {
        let meter = Arc::new(Meter::default());
        meters.push(Arc::clone(&meter));
        let (shared, phases) = (Arc::clone(&shared), phases.subscribe());
        let thread = thread::Builder::new().name(format!("bench-{number}"));
        threads.push(thread.spawn(move || lane::run(number, shared, meter, phases)).map_err(failed)?);
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut leader = Leader { shared, phases, meters, progress: Progress::new() };
    let course = runtime.block_on(leader.lead());
    let mut tally = Tally::default();
    let mut busy = Vec::new();
    for thread in threads {
        let share =
            thread.join().map_err(|_| Failure::new("a thread of the run panicked"))?.map_err(failed)?;
        tally.merge(share.tally);
        busy.push(share.busy);
    }
    let Course { measured, measured_ns, end } = course?;
    Ok(Outcome { tally, counts: leader.total(), measured, measured_ns, end, busy })
}

struct Leader {
    shared: Arc<Shared>,
    phases: watch::Sender<Phase>,
    meters: Vec<Arc<Meter>>,
    progress: Progress,
}

/// What is known when the threads end.
#[derive(Default)]
struct Course {
    measured: Counts,
    measured_ns: u64,
    end: End,
}

/// What ends a phase before its time.
struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let catch = |kind| unix::signal(kind).map_err(|error| Failure::new(format!("signals: {error}")));
        Ok(Self {
            interrupt: catch(unix::SignalKind::interrupt())?,
            terminate: catch(unix::SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Leader {
    async fn lead(&mut self) -> Result<Course, Failure> {
        let course = self.try_lead().await;
        // Whatever happened, the threads must end.
        self.enter(Phase::Closing);
        self.progress.end();
        course
    }

    async fn try_lead(&mut self) -> Result<Course, Failure> {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            () = self.until(|counts, clients, _| counts.ready + counts.failed >= clients.all) => {}
            () = interrupts.next() => return Ok(Course::default()),
        }
        let counts = self.total();
        // Half a pair measures nothing, and in the other layouts what is lost could not be told.
        let all_needed = self.shared.load.mode == Mode::Latency && counts.failed > 0;
        if counts.ready == 0 || all_needed {
            return Ok(Course::default());
        }
        let interval = self.interval();
        self.enter(Phase::Running(interval));
        let mut before = (Counts::default(), interval.measured_ns);
        let end = tokio::select! {
            end = self.measure(interval, &mut before) => end,
            () = interrupts.next() => End::Done,
        };
        let course = self.course_since(before, interval, end);
        self.enter(Phase::Draining { end_ns: self.now_ns().min(interval.end_ns) });
        tokio::select! {
            () = self.drain() => {}
            () = interrupts.next() => {}
        }
        Ok(course)
    }

    fn interval(&self) -> Interval {
        let start_ns = self.now_ns();
        let measured_ns = start_ns + self.shared.load.warmup_ns;
        Interval { start_ns, measured_ns, end_ns: measured_ns.saturating_add(self.shared.load.duration_ns) }
    }

    /// Waits for the end of the interval or of all messages; keeps what was counted before it is measured.
    async fn measure(&mut self, interval: Interval, before: &mut (Counts, u64)) -> End {
        let load = &self.shared.load;
        let waits_for_publishers = load.publishers > 0;
        // A dead subscriber would stop a closed loop for ever.
        let may_stall =
            matches!(load.pace, Pace::Closed) && waits_for_publishers && load.duration_ns == u64::MAX;
        let mut is_measured = false;
        let mut news = (Counts::default(), interval.start_ns);
        let mut end = End::Done;
        self.until(|counts, clients, now_ns| {
            if !is_measured && now_ns >= interval.measured_ns {
                is_measured = true;
                *before = (counts, now_ns);
            }
            if counts != news.0 {
                news = (counts, now_ns);
            }
            if may_stall && now_ns >= news.1 + STALL_NS {
                end = End::Stalled;
            }
            let is_over = now_ns >= interval.end_ns || end == End::Stalled;
            let nobody_is_left = counts.ended + counts.failed >= clients.all;
            let all_is_sent = waits_for_publishers && counts.finished >= u64::from(clients.publishers);
            is_over || nobody_is_left || all_is_sent
        })
        .await;
        end
    }

    fn course_since(&self, (before, before_ns): (Counts, u64), interval: Interval, end: End) -> Course {
        let counts = self.total();
        let now_ns = self.now_ns();
        let ended_itself = self.shared.load.publishers > 0 && now_ns < interval.end_ns;
        let active_ns = self.meters.iter().map(|meter| meter.active_ns()).max().unwrap_or(0);
        // If the last message ended the run, then that was its end, and not when it was noticed.
        let end_ns = if ended_itself { active_ns.clamp(before_ns, now_ns) } else { now_ns };
        Course { measured: counts.since(&before), measured_ns: end_ns - before_ns.min(end_ns), end }
    }

    /// Waits for acknowledgements and deliveries, as long as they come.
    async fn drain(&mut self) {
        let fan_out = self.shared.load.fan_out();
        let mut news = (Counts::default(), self.now_ns());
        let mut complete_ns = None;
        let give_up_ns = self.now_ns() + DRAIN_NS_MAX;
        self.until(|counts, clients, now_ns| {
            if counts != news.0 {
                news = (counts, now_ns);
            }
            let is_complete = counts.finished >= u64::from(clients.publishers)
                && counts.delivered >= counts.taken * fan_out;
            // Only what this run delivers to itself can come twice.
            let aftermath_ns = if fan_out > 0 { AFTERMATH_NS } else { 0 };
            if is_complete && complete_ns.is_none() {
                complete_ns = Some(now_ns);
            }
            complete_ns.is_some_and(|complete_ns| now_ns >= complete_ns + aftermath_ns)
                || now_ns >= news.1 + QUIET_NS
                || now_ns >= give_up_ns
        })
        .await;
    }

    /// Looks again and again until something is so.
    async fn until(&mut self, mut is_so: impl FnMut(Counts, Clients, u64) -> bool) {
        let load = &self.shared.load;
        let clients = Clients { all: load.clients().into(), publishers: load.publishers };
        loop {
            let (counts, now_ns) = (self.total(), self.now_ns());
            // A thread that failed says why when it is joined; nobody does its part of what is waited for.
            let all_work = self.phases.receiver_count() == self.meters.len();
            if is_so(counts, clients, now_ns) || !all_work {
                return;
            }
            self.progress.show(&counts, clients, now_ns);
            time::sleep(TICK).await;
        }
    }

    fn enter(&self, phase: Phase) {
        self.phases.send_replace(phase);
    }

    fn total(&self) -> Counts {
        Meter::total(self.meters.iter().map(AsRef::as_ref))
    }

    fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }
}

/// How many there are.
#[derive(Clone, Copy)]
struct Clients {
    all: u64,
    publishers: u32,
}

/// A line on standard error that is written anew each second, if somebody sees it.
struct Progress {
    next_ns: Option<u64>,
    shown: Option<(Counts, u64)>,
}

impl Progress {
    fn new() -> Self {
        Self { next_ns: io::stderr().is_terminal().then_some(PROGRESS_NS), shown: None }
    }

    fn show(&mut self, counts: &Counts, clients: Clients, now_ns: u64) {
        if self.next_ns.is_none_or(|next_ns| now_ns < next_ns) {
            return;
        }
        let (before, before_ns) = self.shown.unwrap_or_default();
        let secs = (now_ns - before_ns) as f64 / 1e9;
        let rate = |count: u64, before: u64| (count - before) as f64 / secs;
        let connected = counts.ready - counts.ended.min(counts.ready);
        let line = format!(
            "{:4} s  connected {connected}/{}  errors {}  sent {:.0}/s  received {:.0}/s",
            now_ns / 1_000_000_000,
            clients.all,
            counts.failed + counts.ended,
            rate(counts.sent, before.sent),
            rate(counts.received, before.received),
        );
        // The rest of a longer line is cleared.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
        self.shown = Some((*counts, now_ns));
        self.next_ns = Some(now_ns + PROGRESS_NS);
    }

    fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        self.next_ns = None;
    }
}
