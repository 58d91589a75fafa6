//! `dunlin serve`: configuration, logs, the broker, and signals.

use std::{
    env,
    io::{self, IsTerminal},
    panic,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime, signal::unix};
use tracing::{debug, error, info, warn};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, reload};

use super::{EXAMPLES, FAILURE, Settings, USAGE, complain, systemd::ServiceManager, watch::Watch};
use crate::{
    Broker, Builder,
    config::{Config, Log, LogFormat},
    net::PassedSockets,
    server::Reloading,
    store::is_guarded,
};

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Read this file; without it $DUNLIN_CONFIG, else /etc/dunlin/dunlin.toml if it exists
    #[arg(short, long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let sources = arguments.settings.sources(arguments.config);
    let loaded = match Settings::load_from(&sources) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    // Before there is another thread, for it clears the environment of what it has taken.
    let passed = match PassedSockets::of_environment() {
        Ok(passed) => passed,
        Err(error) => {
            complain(error);
            return FAILURE.into();
        }
    };
    // Dropped last: it writes what is left.
    let (_log, set_filter) = match start_log(&loaded.config.log) {
        Ok(started) => started,
        Err(error) => {
            complain(error);
            return USAGE.into();
        }
    };
    abort_on_panic();
    match loaded.file.as_deref().map(Path::display) {
        Some(file) => info!(%file, "configuration read"),
        None => info!("no configuration file, defaults apply"),
    }
    raise_descriptor_limit(&loaded.config);
    let reloading = Reloading {
        load: Box::new(move || Config::load(&sources).map_err(|errors| errors.to_string())),
        set_log_filter: set_filter,
    };
    let watched = Watch::of(loaded.file.as_deref(), &loaded.config);
    let builder = Broker::builder().loaded(loaded).reloading(reloading).sockets(passed);
    run(builder, watched)
}

/// Ends the program at any panic: half a broker would keep half of its promises. The exception is a panic that
/// somebody is going to catch on purpose, around the opening of a damaged database.
fn abort_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if is_guarded() {
            return debug!("caught: {panic}");
        }
        print(panic);
        process::abort();
    }));
}

/// Lets the process open as many files as the system allows it: each connection is one. Says so if that is
/// less than the configuration promises.
fn raise_descriptor_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let wanted = config.limits.connections_max as u64;
    // None means no limit.
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        info!(allowed, wanted, "the system allows fewer open files than limits.connections_max");
    }
}

/// Serves until SIGTERM or SIGINT; a second signal does not wait for the stop to finish, nor the first one for
/// the start.
fn run(builder: Builder, watch: Watch) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the runtime does not start");
            return FAILURE.into();
        }
    };
    let code = runtime.block_on(serve(builder, watch));
    // A thread may still read the store: it may be stopped at any moment, as a crash may.
    runtime.shutdown_background();
    code
}

async fn serve(builder: Builder, mut watch: Watch) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals cannot be caught");
            return FAILURE.into();
        }
    };
    let mut hangup = match unix::signal(unix::SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            error!(%error, "signals cannot be caught");
            return FAILURE.into();
        }
    };
    let manager = ServiceManager::of_environment();
    manager.status("starting: reading what is stored");
    let started = tokio::select! {
        started = builder.start() => started,
        signal = signals.next() => {
            info!(signal, "stopped before the broker had started");
            return ExitCode::SUCCESS;
        }
    };
    let broker = match started {
        Ok(broker) => broker,
        Err(error) => {
            error!("{error}");
            manager.status(&format!("not started: {error}"));
            return FAILURE.into();
        }
    };
    manager.ready(&serving(&broker));
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = keep_reloading(&broker, &mut hangup, &mut watch, &manager) => "",
        () = manager.keep_watchdog(async || broker.pulse().await) => "",
        reason = broker.failed() => {
            error!("stopping, since nothing can be stored: {reason}");
            manager.stopping(&format!("stopping, since nothing can be stored: {reason}"));
            broker.stop().await;
            return FAILURE.into();
        }
    };
    info!(signal, "stopping");
    manager.stopping("stopping: connections get what is for them");
    tokio::select! {
        () = broker.stop() => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        signal = signals.next() => {
            warn!(signal, "stopped at once, connections were not drained");
            FAILURE.into()
        }
    }
}

/// Reads the configuration again whenever SIGHUP comes or one of its files changes. It does not end.
async fn keep_reloading(
    broker: &Broker,
    hangup: &mut unix::Signal,
    watch: &mut Watch,
    manager: &ServiceManager,
) {
    loop {
        tokio::select! {
            _ = hangup.recv() => info!("SIGHUP: reading the configuration again"),
            file = watch.changed() => info!(file = %file.display(), "a file has changed: reading the configuration again"),
        }
        manager.reloading();
        // What came of it is in the log too.
        match broker.reload().await {
            Ok(_) => manager.ready(&serving(broker)),
            Err(error) => manager.ready(&format!("{}; not reloaded: {error}", serving(broker))),
        }
    }
}

/// What is said of a broker that works.
fn serving(broker: &Broker) -> String {
    let addresses: Vec<String> = broker.addresses().iter().map(|(_, address)| address.to_string()).collect();
    format!("serving on {}", addresses.join(", "))
}

/// The signals that end the broker.
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(unix::SignalKind::terminate())?,
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Lines of the log that wait to be written. Further ones are lost: a reader that does not read must not
/// stop the broker.
const LINES_MAX: usize = 10_000;

/// Takes another filter for the log.
type SetFilter = Box<dyn Fn(&str) + Send + Sync>;

/// Sends logs to standard error, filtered per module. Returns what writes them, and what takes another filter.
fn start_log(log: &Log) -> Result<(WorkerGuard, SetFilter), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("log.filter: {error}"))?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(io::stderr());
    let builder = fmt().with_env_filter(filter).with_writer(writer);
    // https://no-color.org: set and not empty.
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (started, set_filter) = match log.format {
        LogFormat::Auto | LogFormat::Pretty => {
            let builder =
                builder.with_ansi(colours || log.format == LogFormat::Pretty).with_filter_reloading();
            let set_filter = filter_setter(builder.reload_handle());
            (builder.try_init(), set_filter)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let set_filter = filter_setter(builder.reload_handle());
            (builder.try_init(), set_filter)
        }
    };
    started.map(|()| (guard, set_filter)).map_err(|error| format!("logs: {error}"))
}

fn filter_setter<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> SetFilter {
    Box::new(move |filter| {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string());
        if let Err(error) = filter.and_then(|filter| handle.reload(filter).map_err(|error| error.to_string()))
        {
            warn!("log.filter: {error}");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, panic::catch_unwind, process::Command};

    use super::*;
    use crate::store::guarded;

    /// Set in the process that panics.
    const CHILD: &str = "DUNLIN_TEST_PANICS";
    const SIGABRT: i32 = 6;

    /// The test runs itself once more, since what it shows ends a process.
    #[test]
    fn a_panic_ends_the_program_unless_it_is_guarded() {
        if env::var_os(CHILD).is_some() {
            abort_on_panic();
            assert!(guarded(|| panic!("quiet")).is_err());
            println!("guarded");
            let _ = catch_unwind(|| panic!("loud"));
            println!("survived");
            return;
        }
        let name = "cli::serve::tests::a_panic_ends_the_program_unless_it_is_guarded";
        let mut child = Command::new(env::current_exe().unwrap());
        let ran = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.signal(), Some(SIGABRT), "{stdout}{stderr}");
        assert!(stdout.contains("guarded") && !stdout.contains("survived"), "{stdout}");
        assert!(stderr.contains("loud") && !stderr.contains("quiet"), "{stderr}");
    }
}
