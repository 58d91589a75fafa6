//! The thread of back ends that wait for the network.
//!
//! Connections authenticate on the threads of the shards, which also carry all messages. What waits for a
//! name server, a handshake or an answer does so here, and ends even if the client that caused it is gone.

#![expect(
    clippy::disallowed_methods,
    reason = "a thread and tasks, on behalf of connections that must not wait"
)]

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, thread};

use tokio::{
    runtime,
    sync::{Semaphore, mpsc},
};

/// Jobs that wait for their turn. More are refused: their clients are told that the server is busy.
const QUEUED_JOBS_MAX: usize = 256;

/// Jobs at a time.
const RUNNING_JOBS_MAX: usize = 256;

/// Threads that ask name servers, which may take long to answer.
const RESOLVER_THREADS_MAX: usize = 4;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A thread that runs jobs. It ends when the last copy of this is gone.
#[derive(Clone)]
pub struct Background {
    jobs: mpsc::Sender<Job>,
}

/// The thread has as much to do as it may have, or is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread or no runtime.
    pub fn start() -> io::Result<Background> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVER_THREADS_MAX)
            .thread_name("auth-resolver")
            .build()?;
        let (jobs, queue) = mpsc::channel(QUEUED_JOBS_MAX);
        thread::Builder::new().name("auth".into()).spawn(move || {
            runtime.block_on(run(queue));
            // A name server that does not answer holds up nobody's stop.
            runtime.shutdown_background();
        })?;
        Ok(Background { jobs })
    }

    /// Runs a job to its end, which the job itself has to bound.
    ///
    /// # Errors
    /// [`Busy`]; the job is dropped.
    pub fn run(&self, job: impl Future<Output = ()> + Send + 'static) -> Result<(), Busy> {
        self.jobs.try_send(Box::pin(job)).map_err(|_| Busy)
    }
}

async fn run(mut queue: mpsc::Receiver<Job>) {
    let turns = Arc::new(Semaphore::new(RUNNING_JOBS_MAX));
    while let Some(job) = queue.recv().await {
        // Closed by nobody.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        tokio::spawn(async move {
            job.await;
            drop(turn);
        });
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background")
    }
}
