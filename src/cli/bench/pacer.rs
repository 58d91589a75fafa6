//! Wakes the connections of a thread when they asked to be woken, to a few microseconds.
//!
//! tokio's timers go by milliseconds, which is more than most latencies that are measured here.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    task::{Context, Poll, Waker},
};

/// Who is to be woken when.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    sleepers: Vec<Sleeper>,
    /// Times with the numbers of sleepers. One that has since asked for an earlier time stays in it once more and is
    /// woken for nothing: there are at most as many of those as times were asked for and have not yet come.
    due: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Sleeper {
    waker: Option<Waker>,
    /// The earliest time in `due` of this one; `u64::MAX` if there is none.
    armed_ns: u64,
}

impl Pacer {
    /// Room for another sleeper; returns its number.
    pub(super) fn enter(&mut self) -> u32 {
        let number = u32::try_from(self.sleepers.len()).unwrap_or(u32::MAX);
        self.sleepers.push(Sleeper { waker: None, armed_ns: u64::MAX });
        number
    }

    /// Wakes a sleeper at a time, if not earlier. Returns whether this is now the first of all times.
    pub(super) fn arm(&mut self, number: u32, due_ns: u64, waker: &Waker) -> First {
        let Some(sleeper) = self.sleepers.get_mut(number as usize) else { return First::No };
        match &mut sleeper.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        if due_ns >= sleeper.armed_ns {
            return First::No;
        }
        sleeper.armed_ns = due_ns;
        let first = self.due.peek().is_none_or(|&Reverse((earliest, _))| due_ns < earliest);
        self.due.push(Reverse((due_ns, number)));
        if first { First::Yes } else { First::No }
    }

    /// Wakes who is due; returns the next time.
    pub(super) fn wake(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(&Reverse((due_ns, number))) = self.due.peek() {
            if due_ns > now_ns {
                return Some(due_ns);
            }
            self.due.pop();
            let Some(sleeper) = self.sleepers.get_mut(number as usize) else { continue };
            sleeper.armed_ns = u64::MAX;
            if let Some(waker) = &sleeper.waker {
                waker.wake_by_ref();
            }
        }
        None
    }

    /// Wakes all, for something has changed for all.
    pub(super) fn wake_all(&self) {
        self.sleepers.iter().filter_map(|sleeper| sleeper.waker.as_ref()).for_each(Waker::wake_by_ref);
    }
}

/// Whether a time comes before all others, so that the alarm must be set anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Yes,
    No,
}

#[cfg(target_os = "linux")]
pub(super) use precise::Alarm;

#[cfg(not(target_os = "linux"))]
pub(super) use coarse::Alarm;

#[cfg(target_os = "linux")]
mod precise {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    use super::{Context, Poll, io};

    /// A timer of the system.
    #[derive(Debug)]
    pub(in crate::cli::bench) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        pub(in crate::cli::bench) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "what is asked of the descriptor, that it stays the same and open, an OwnedFd is"
            )]
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        /// Goes off once after so long.
        pub(in crate::cli::bench) fn set(&self, after_ns: u64) -> io::Result<()> {
            // Zero would turn it off.
            let after_ns = after_ns.clamp(1, i64::MAX as u64);
            let tv_sec = i64::try_from(after_ns / 1_000_000_000).unwrap_or(i64::MAX);
            let it_value = Timespec { tv_sec, tv_nsec: (after_ns % 1_000_000_000) as _ };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval: never, it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }

        /// Ready when it has gone off.
        pub(in crate::cli::bench) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            loop {
                let mut guard = std::task::ready!(self.0.poll_read_ready(context))?;
                let mut count = [0; 8];
                match rustix::io::read(guard.get_inner(), &mut count) {
                    Ok(_) => return Poll::Ready(Ok(())),
                    Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod coarse {
    #![expect(clippy::disallowed_methods, reason = "a load generator is all shell: it waits by the clock")]

    use std::{cell::RefCell, future::Future, pin::Pin, time::Duration};

    use tokio::time::Sleep;

    use super::{Context, Poll, Waker, io};

    /// tokio's timer, where the system has no better one; the report tells how late it was.
    #[derive(Debug, Default)]
    pub(in crate::cli::bench) struct Alarm {
        sleep: RefCell<Option<Pin<Box<Sleep>>>>,
        waiting: RefCell<Option<Waker>>,
    }

    impl Alarm {
        pub(in crate::cli::bench) fn new() -> io::Result<Self> {
            Ok(Self::default())
        }

        pub(in crate::cli::bench) fn set(&self, after_ns: u64) -> io::Result<()> {
            let sleep = tokio::time::sleep(Duration::from_nanos(after_ns));
            self.sleep.replace(Some(Box::pin(sleep)));
            // The new sleep is not polled yet, so nobody would be woken by it.
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
            Ok(())
        }

        pub(in crate::cli::bench) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.waiting.replace(Some(context.waker().clone()));
            let mut sleep = self.sleep.borrow_mut();
            let Some(sleeping) = sleep.as_mut() else { return Poll::Pending };
            std::task::ready!(sleeping.as_mut().poll(context));
            *sleep = None;
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sleepers_are_woken_in_time_and_the_earliest_sets_the_alarm() {
        let mut pacer = Pacer::default();
        let (early, late) = (pacer.enter(), pacer.enter());
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let wakers = counts.clone().map(Waker::from);
        assert_eq!(pacer.arm(late, 30, &wakers[1]), First::Yes);
        assert_eq!(pacer.arm(early, 10, &wakers[0]), First::Yes);
        assert_eq!(pacer.arm(early, 20, &wakers[0]), First::No);
        assert_eq!(pacer.wake(9), Some(10));
        assert_eq!(pacer.wake(10), Some(30));
        assert_eq!(pacer.wake(31), None);
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [1, 1]);
        assert_eq!(pacer.arm(early, 40, &wakers[0]), First::Yes);
    }
}
