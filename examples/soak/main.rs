//! A broker under mixed load for a long time: does it lose anything, and does it keep its size?
//!
//! ```sh
//! cargo build --release
//! cargo run --release --example soak -- [--minutes 30] [PROGRAM]
//! ```
//!
//! Starts the program with the default configuration on a data directory of its own. Clients of MQTT 3.1.1 and 5
//! publish numbers with each QoS, subscribe with wildcards and as members of groups, come and go in all ways, with
//! sessions that end and sessions that go on, die with wills, take each other's place, and look at retained messages.
//! What was published with QoS 1 and 2 must have come, in order, and with QoS 2 once. At the end nothing may be left.
//!
//! Memory and open files of the broker are taken every ten seconds, and printed every five minutes; it fails if the
//! last third of the run needs 10 % more than the one before.

#![expect(clippy::disallowed_methods, reason = "a program of its own, with tasks and a clock")]

mod broker;
mod connection;
mod ledger;
mod publish;
mod report;
mod subscribe;
mod wills;

use std::{
    cell::RefCell,
    future::Future,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::{Duration, SystemTime},
};

use clap::Parser;
use dunlin::codec::{QoS, ReasonCode, Version};
use tokio::{
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until},
};

use broker::{Broker, Sample};
use connection::{Connection, Gone, Got, Keeps, PATIENCE, Who};
use ledger::{Flow, Group, Ledger, Phase};
use publish::Publisher;
use subscribe::{Habit, Subscriber};

const SAMPLE_PERIOD: Duration = Duration::from_secs(10);
const REPORT_PERIOD: Duration = Duration::from_secs(300);

/// How long a session of MQTT 5 outlives its connection, where it is to go on.
const EXPIRY_SECS: u32 = 60;

/// And where it is to end.
const SHORT_EXPIRY_SECS: u32 = 3;

/// Drives a broker for a long time, and checks that nothing is lost and that it does not grow.
#[derive(Parser)]
struct Arguments {
    /// The broker
    #[arg(default_value = "target/release/dunlin")]
    program: PathBuf,
    /// How long to publish
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// QoS 0, 1 and 2 messages a second, all publishers together
    #[arg(long, default_value_t = 600)]
    rate: u64,
    /// What the clients' choices depend on, next to time; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = runtime.and_then(|runtime| LocalSet::new().block_on(&runtime, run(&arguments)));
    match run {
        Ok(0) => {
            println!("passed");
            ExitCode::SUCCESS
        }
        Ok(failures) => {
            println!("FAILED: {failures} times");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many times something was not as it must be.
async fn run(arguments: &Arguments) -> io::Result<u64> {
    let seed = arguments.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
    });
    let broker = Broker::start(&arguments.program).await?;
    let ledger = Rc::new(Ledger::new(broker.port, flows(), seed));
    println!(
        "{}, {} minutes, {} messages/s, seed {seed}",
        arguments.program.display(),
        arguments.minutes,
        arguments.rate
    );
    let start = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let idle = broker.sample(start)?;
    spawn_subscribers(&ledger);
    spawn_others(&ledger, arguments.rate);
    if !becomes_true(|| ledger.awaited.get() == 0).await {
        ledger.fail("not all subscriptions are acknowledged");
    }
    ledger.phase.set(Phase::Running);
    let samples = watch(&broker, &ledger, start, arguments.minutes).await?;
    finish(&ledger).await;
    check_left(&broker, &ledger, &idle, start).await?;
    for wrong in report::judge(&samples) {
        ledger.fail(wrong);
    }
    print_totals(&ledger, &idle, &samples)?;
    let log = broker.log();
    if !log.is_empty() {
        ledger.fail(format_args!("the broker complains:\n{log}"));
    }
    let status = broker.stop().await?;
    if !status.success() {
        ledger.fail(format_args!("the broker ended: {status}"));
    }
    Ok(ledger.failures())
}

/// Each QoS from each version.
fn flows() -> Vec<Flow> {
    let kinds = [Version::V311, Version::V5]
        .into_iter()
        .flat_map(|version| [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| (version, qos)));
    let flow = |(number, (version, qos))| Flow {
        topic: format!("flow/{number}/q{}", qos as u8),
        qos,
        version,
        next: Default::default(),
    };
    kinds.enumerate().map(flow).collect()
}

fn spawn_subscribers(ledger: &Rc<Ledger>) {
    use Habit::{Flaps, Forgets, Sleeps, Stays};
    use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    use Version::{V5, V311};
    let keeps = Keeps::Secs(EXPIRY_SECS);
    let all = [
        ("wills", V5, keeps, "wills/#", ExactlyOnce, Stays),
        ("exact", V5, keeps, "flow/#", ExactlyOnce, Stays),
        ("least", V311, keeps, "flow/+/+", AtLeastOnce, Stays),
        ("most", V5, Keeps::Nothing, "#", AtMostOnce, Stays),
        ("told", V311, Keeps::Nothing, "$SYS/#", AtMostOnce, Stays),
        ("flaps-5", V5, keeps, "flow/#", ExactlyOnce, Flaps),
        ("flaps-3", V311, keeps, "+/+/q2", ExactlyOnce, Flaps),
        ("sleeps-5", V5, keeps, "flow/+/q1", AtLeastOnce, Sleeps),
        ("sleeps-3", V311, keeps, "flow/#", ExactlyOnce, Sleeps),
        ("forgets-5", V5, Keeps::Secs(SHORT_EXPIRY_SECS), "flow/#", ExactlyOnce, Forgets),
        ("forgets-3", V311, Keeps::Nothing, "+/#", ExactlyOnce, Forgets),
    ];
    for (id, version, keeps, filter, qos, habit) in all {
        let who = Who { id: id.into(), version, keeps, port: ledger.port };
        spawn_local(Subscriber::new(ledger, who, filter, qos, habit).run(ledger.clone()));
    }
    let group = Rc::new(RefCell::new(Group::new(ledger)));
    for (id, version, habit) in [("member-1", V5, Stays), ("member-2", V311, Flaps), ("member-3", V5, Sleeps)]
    {
        let who = Who { id: id.into(), version, keeps, port: ledger.port };
        let member = Subscriber::member(ledger, who, "$share/workers/flow/#", habit, &group);
        spawn_local(member.run(ledger.clone()));
    }
}

fn spawn_others(ledger: &Rc<Ledger>, rate: u64) {
    let who = |id: String, version, keeps| Who { id, version, keeps, port: ledger.port };
    let burst = (rate / (20 * ledger.flows.len() as u64)).max(1);
    for (at, flow) in ledger.flows.iter().enumerate() {
        let who = who(format!("publisher-{at}"), flow.version, Keeps::Secs(EXPIRY_SECS));
        ledger.durable.borrow_mut().insert(who.id.clone());
        spawn_busy(ledger, Publisher::new(who, at, burst).run(ledger.clone()));
    }
    for (at, version) in [Version::V5, Version::V311, Version::V5, Version::V311].into_iter().enumerate() {
        let guest = who(format!("guest-{at}"), version, Keeps::Nothing);
        spawn_busy(ledger, subscribe::be_guest(guest, ledger.clone()));
        let mortal = who(format!("mortal-{at}"), version, Keeps::Nothing);
        spawn_busy(ledger, wills::be_mortal(mortal, ledger.clone()));
        spawn_busy(ledger, wills::be_stranger(ledger.clone()));
    }
    let keeper = who("keeper".into(), Version::V5, Keeps::Nothing);
    spawn_busy(ledger, publish::keep_retained(keeper, ledger.clone()));
    let auditor = who("auditor".into(), Version::V311, Keeps::Nothing);
    spawn_busy(ledger, subscribe::audit_retained(auditor, ledger.clone()));
}

/// Spawns a client that takes itself out of those who are busy.
fn spawn_busy(ledger: &Ledger, client: impl Future<Output = ()> + 'static) {
    ledger.busy.set(ledger.busy.get() + 1);
    spawn_local(client);
}

/// Takes samples and prints them.
async fn watch(broker: &Broker, ledger: &Ledger, start: Instant, minutes: f64) -> io::Result<Vec<Sample>> {
    println!("{}", report::head());
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut samples = vec![broker.sample(start)?];
    let (mut first, mut before, mut next) = (0, ledger.counts(), Instant::now());
    let mut report = next + REPORT_PERIOD;
    while next < end {
        next = (next + SAMPLE_PERIOD).min(end);
        sleep_until(next).await;
        samples.push(broker.sample(start)?);
        if next >= report || next >= end {
            println!("{}", report::line(&samples[first..], &before, &ledger.counts()));
            (first, before, report) = (samples.len() - 1, ledger.counts(), report + REPORT_PERIOD);
        }
    }
    Ok(samples)
}

/// Lets everybody come to an end, and ends the sessions that would go on.
async fn finish(ledger: &Ledger) {
    ledger.phase.set(Phase::Ending);
    if !becomes_true(|| ledger.busy.get() == 0).await {
        ledger.fail(format_args!("{} clients do not come to an end", ledger.busy.get()));
    }
    ledger.phase.set(Phase::Draining);
    if !becomes_true(|| ledger.subscribers.get() == 0).await {
        ledger.fail(format_args!("{} subscribers do not come to an end", ledger.subscribers.get()));
    }
    let durable = ledger.durable.take();
    for id in durable {
        if let Err(Gone(why)) = visit(&observer(&id, ledger)).await {
            ledger.fail(format_args!("{id}: {why}"));
        }
    }
}

/// One who leaves nothing behind.
fn observer(id: &str, ledger: &Ledger) -> Who {
    Who { id: id.into(), version: Version::V5, keeps: Keeps::Nothing, port: ledger.port }
}

async fn visit(who: &Who) -> Result<(), Gone> {
    Connection::open(who, None).await?.disconnect(ReasonCode::Success).await
}

/// What the broker says of itself, and the system of it, when all clients are gone.
async fn check_left(broker: &Broker, ledger: &Ledger, idle: &Sample, start: Instant) -> io::Result<()> {
    // One session and one subscription are those of the client who asks.
    for (value, expected) in
        [("clients/total", "1"), ("subscriptions/count", "1"), ("store/messages/count", "0")]
    {
        match told(ledger, &format!("$SYS/broker/{value}"), expected).await {
            Ok(()) => {}
            Err(Gone(why)) => ledger.fail(format_args!("{value}: {why}")),
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let files = broker.sample(start)?.files;
        if files <= idle.files {
            return Ok(());
        }
        if Instant::now() > deadline {
            ledger.fail(format_args!("{files} open files are left of {} at the start", idle.files));
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the broker publishes this.
async fn told(ledger: &Ledger, topic: &str, expected: &str) -> Result<(), Gone> {
    let mut connection = Connection::open(&observer("observer", ledger), None).await?;
    connection.subscribe(topic, QoS::AtMostOnce);
    let (deadline, mut last) = (Instant::now() + PATIENCE, Vec::new());
    while last != expected.as_bytes() {
        for got in connection.read(deadline).await? {
            if let Got::Publish { payload, .. } = got {
                last = payload;
            }
        }
        if Instant::now() >= deadline {
            let last = String::from_utf8_lossy(&last);
            return Err(Gone(format!("it is {last} where {expected} was expected")));
        }
    }
    connection.disconnect(ReasonCode::Success).await
}

fn print_totals(ledger: &Ledger, idle: &Sample, samples: &[Sample]) -> io::Result<()> {
    let counts = ledger.counts();
    println!(
        "{} messages in, {} out ({} repeated; {} of QoS 0 missed), {} connections, {} take-overs, {} subscriptions, \
         {} sessions that had ended, {} wills, {} looks at what is retained",
        counts.published,
        counts.delivered,
        counts.again,
        counts.gaps,
        counts.connects,
        counts.takeovers,
        counts.subscribes,
        counts.expired,
        counts.wills,
        counts.audits,
    );
    if let Some(last) = samples.last() {
        println!(
            "processor: broker {:.1} %, this program {:.1} % of a core; before the first client {:.1} MiB",
            100.0 * last.cpu_secs / last.at_secs,
            100.0 * broker::cpu_secs(Path::new("/proc/self"))? / last.at_secs,
            idle.rss_bytes as f64 / (1024.0 * 1024.0),
        );
    }
    Ok(())
}

/// Waits for a condition. Returns whether it came true in time.
async fn becomes_true(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + 4 * PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    }
    true
}
