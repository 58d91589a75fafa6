//! Turns of connections that are not past CONNECT.
//!
//! A TLS handshake computes for a good part of a millisecond. If a thousand clients come at once, a shard that went
//! through them in a row would leave its connected clients without an answer for as long. So such connections wait
//! in line for a turn, and between two turns everything else that is ready on the shard goes on, with what has come
//! in from the network meanwhile.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

/// Connections that have their turn before the others go on. A turn is what one can do without waiting for its peer:
/// half a TLS handshake at most.
const TURNS_AT_A_TIME: usize = 1;

/// The line of one shard.
#[derive(Default)]
pub(crate) struct Pace {
    /// Bounded by `limits.handshakes_max`: who holds no permit is not here.
    line: RefCell<VecDeque<Rc<Place>>>,
    demand: Notify,
}

/// A place in the line, kept while its connection lives.
#[derive(Default)]
struct Place {
    state: Cell<State>,
    waker: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Not in the line.
    #[default]
    Idle,
    /// In the line.
    Waiting,
    /// It may go on.
    Turn,
    /// The connection is gone.
    Left,
}

impl Pace {
    /// Gives turns, for as long as the shard lives.
    pub(crate) async fn run(&self) {
        loop {
            self.demand.notified().await;
            while self.give_turns() {
                // Comes back when all others that are ready have been polled, and the network too.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether there was anybody to give a turn.
    fn give_turns(&self) -> bool {
        for given in 0..TURNS_AT_A_TIME {
            if !self.give_turn() {
                return given > 0;
            }
        }
        true
    }

    fn give_turn(&self) -> bool {
        let mut line = self.line.borrow_mut();
        while let Some(place) = line.pop_front() {
            if place.state.get() == State::Waiting {
                place.state.set(State::Turn);
                if let Some(waker) = place.waker.take() {
                    waker.wake();
                }
                return true;
            }
        }
        false
    }

    /// Lets a future go on by turns only.
    pub(crate) fn paced<F: Future>(self: &Rc<Self>, future: F) -> Paced<F> {
        Paced { future: Box::pin(future), place: Rc::default(), pace: self.clone() }
    }
}

/// A future that goes on by turns. See [`Pace::paced`].
pub(crate) struct Paced<F> {
    future: Pin<Box<F>>,
    place: Rc<Place>,
    pace: Rc<Pace>,
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.place.state.get() {
            State::Turn => {
                self.place.state.set(State::Idle);
                self.future.as_mut().poll(cx)
            }
            State::Idle => {
                self.place.state.set(State::Waiting);
                self.place.waker.set(Some(cx.waker().clone()));
                self.pace.line.borrow_mut().push_back(self.place.clone());
                self.pace.demand.notify_one();
                Poll::Pending
            }
            State::Waiting | State::Left => {
                self.place.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<F> Drop for Paced<F> {
    fn drop(&mut self) {
        self.place.state.set(State::Left);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "turns are between tasks")]
mod tests {
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    type Log = Rc<RefCell<Vec<String>>>;

    /// A future that is ready at its third poll, and says each time that it was polled.
    async fn three_steps(log: Log, name: &'static str) {
        for step in 0..3 {
            log.borrow_mut().push(format!("{name}{step}"));
            if step < 2 {
                yield_now().await;
            }
        }
    }

    /// A line and the task that gives turns.
    fn started() -> (Rc<Pace>, Log) {
        let pace = Rc::new(Pace::default());
        let giver = pace.clone();
        spawn_local(async move { giver.run().await });
        (pace, Log::default())
    }

    #[tokio::test]
    async fn connected_clients_go_on_between_any_two_turns() {
        let run = async {
            let (pace, log) = started();
            let names = ["a", "b", "c"];
            let arriving = names.map(|name| spawn_local(pace.paced(three_steps(log.clone(), name))));
            let is_done = Rc::new(Cell::new(false));
            let connected = spawn_local({
                let (log, is_done) = (log.clone(), is_done.clone());
                async move {
                    while !is_done.get() {
                        log.borrow_mut().push("-".to_owned());
                        yield_now().await;
                    }
                }
            });
            for task in arriving {
                task.await.unwrap();
            }
            is_done.set(true);
            connected.await.unwrap();
            log.take()
        };
        let log = LocalSet::new().run_until(run).await;
        let turns: Vec<&str> = log.iter().filter(|step| *step != "-").map(String::as_str).collect();
        assert_eq!(turns, ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"], "in order of arrival");
        let has_other = |pair: &[String]| pair.iter().any(|step| step == "-");
        assert!(log.windows(2).all(has_other), "two turns in a row: {log:?}");
    }

    #[tokio::test]
    async fn who_leaves_the_line_does_not_hold_it_up() {
        let run = async {
            let (pace, log) = started();
            let mut gone = Box::pin(pace.paced(three_steps(log.clone(), "gone")));
            let waits = std::future::poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx).is_pending())).await;
            assert!(waits);
            drop(gone);
            pace.paced(three_steps(log.clone(), "a")).await;
            assert!(pace.line.borrow().is_empty());
            log.take()
        };
        assert_eq!(LocalSet::new().run_until(run).await, ["a0", "a1", "a2"]);
    }
}
