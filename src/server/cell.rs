//! One shard with its thread's means: the place where the pure core meets the world.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
};

use tokio::sync::Notify;

use crate::{
    broker::{Cause, Event, Outputs, Shard},
    net::Clock,
    session::LinkId,
    store::Submitted,
    time::Timestamp,
};

use super::{Common, connection, log, mailbox::Mail, pace::Pace};

/// A shard on its thread.
///
/// Whatever happens goes through [`ShardCell::turn`]: it steps the shard and sees to what comes out, so
/// that nothing leaves before the store has it. A connection's task writes what its outbox holds; a turn
/// wakes the tasks of all connections that it touched, each once, and so what many publishers send to one
/// subscriber in a row leaves in one write.
pub(crate) struct ShardCell {
    pub(crate) index: u16,
    pub(crate) common: Arc<Common>,
    shard: RefCell<Shard>,
    outputs: RefCell<Outputs>,
    /// The task of each connection, by its slot.
    wakers: RefCell<Vec<Option<(LinkId, Waker)>>>,
    /// The connection whose task is running: it needs no waking.
    current: Cell<Option<LinkId>>,
    /// Connections that were woken, in all.
    woken: Cell<u64>,
    letters: RefCell<Vec<Mail>>,
    /// Where sockets are read into: one for all connections of the shard.
    scratch: Cell<Vec<u8>>,
    /// The timeout that the main task waits for, and how it learns of an earlier one.
    armed: Cell<Option<Timestamp>>,
    pub(crate) rearm: Notify,
    /// Tasks of connections that are alive.
    pub(crate) connections: Cell<usize>,
    pub(crate) is_stopping: Cell<bool>,
    pub(crate) emptied: Notify,
    /// Turns of connections that are not past CONNECT.
    pub(crate) pace: Rc<Pace>,
}

impl ShardCell {
    pub(crate) fn new(index: u16, common: Arc<Common>, shard: Shard) -> Rc<ShardCell> {
        Rc::new(ShardCell {
            index,
            common,
            shard: RefCell::new(shard),
            outputs: RefCell::default(),
            wakers: RefCell::default(),
            current: Cell::new(None),
            woken: Cell::new(0),
            letters: RefCell::default(),
            scratch: Cell::new(Vec::new()),
            armed: Cell::new(None),
            rearm: Notify::new(),
            connections: Cell::new(0),
            is_stopping: Cell::new(false),
            emptied: Notify::new(),
            pace: Rc::default(),
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.common.clock
    }

    /// Steps the shard, then sees to all that it wants done.
    pub(crate) fn turn<R>(&self, step: impl FnOnce(&mut Shard, Timestamp, &mut Outputs) -> R) -> R {
        let (now, began_us) = self.clock().tick();
        let mut shard = self.shard.borrow_mut();
        let mut outputs = self.outputs.borrow_mut();
        let result = step(&mut shard, now, &mut outputs);
        self.commit(&mut shard, now, &mut outputs);
        for fetch in outputs.fetches.drain(..) {
            self.common.store.fetch(self.index, fetch, &self.common.commits);
        }
        self.forward(&mut outputs);
        let rules = &*self.common.shared.authorize;
        for event in outputs.events.drain(..) {
            log::event(&event, rules);
            log::audit(&self.common.audit, now, &event, rules);
            self.common.insight.tell(now, &event, rules);
            if let Event::Disconnected { client_id, peer, cause: Cause::TakenOver { by } } = &event
                && self.common.guard.is_contended(now, client_id)
            {
                log::contended(client_id, peer, by);
            }
        }
        if outputs.tells_of_messages() {
            let ended_us = || self.clock().uptime().as_micros() as u64;
            self.common.insight.take(now, began_us, ended_us, &mut outputs);
        }
        let wakers = self.wakers.borrow();
        for id in outputs.touched.drain(..) {
            if self.current.get() == Some(id) {
                continue;
            }
            if let Some(Some((known, waker))) = wakers.get(id.slot as usize)
                && *known == id
            {
                waker.wake_by_ref();
                self.woken.set(self.woken.get() + 1);
            }
        }
        let next = shard.next_timeout();
        if next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed)) {
            self.rearm.notify_one();
        }
        result
    }

    /// Steps the shard for the connection whose task is running.
    pub(crate) fn turn_of<R>(
        &self,
        id: LinkId,
        step: impl FnOnce(&mut Shard, Timestamp, &mut Outputs) -> R,
    ) -> R {
        self.current.set(Some(id));
        let result = self.turn(step);
        self.current.set(None);
        result
    }

    /// How many connections were woken so far.
    pub(crate) fn woken(&self) -> u64 {
        self.woken.get()
    }

    /// Looks at the shard without changing anything that would have to be seen to.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Shard) -> R) -> R {
        look(&mut self.shard.borrow_mut())
    }

    /// Hands the journal to the store. What a commit sets free may write to the journal again.
    fn commit(&self, shard: &mut Shard, now: Timestamp, outputs: &mut Outputs) {
        while let Some(batch) = shard.take_batch() {
            match self.common.store.submit(self.index, batch, &self.common.commits) {
                Submitted::Committed(commit) => shard.committed(now, commit, outputs),
                Submitted::Pending => {}
            }
        }
    }

    fn forward(&self, outputs: &mut Outputs) {
        if outputs.forwards.is_empty() {
            return;
        }
        outputs.forwarded = 0;
        for (index, mailbox) in self.common.mailboxes.iter().enumerate() {
            let mut letters =
                outputs.forwards.extract_if(.., |(shard, _)| usize::from(*shard) == index).peekable();
            if letters.peek().is_some() {
                mailbox.post(letters.map(|(_, forward)| Mail::Forward(forward)));
            }
        }
    }

    /// Reads the mail. Done before a connection's packets are heard, so that what another shard has
    /// acknowledged is here before what its client does next.
    pub(crate) fn read_mail(self: &Rc<Self>) {
        let mut letters = self.letters.take();
        if self.common.mailboxes.take(self.index, &mut letters) {
            for letter in letters.drain(..) {
                self.open(letter);
            }
        }
        self.letters.replace(letters);
    }

    fn open(self: &Rc<Self>, letter: Mail) {
        match letter {
            Mail::Forward(forward) => self.turn(|shard, now, out| shard.forwarded(now, &forward, out)),
            Mail::Committed(commit) => self.turn(|shard, now, out| shard.committed(now, commit, out)),
            Mail::Fetched(fetched) => self.turn(|shard, now, out| shard.fetched(now, *fetched, out)),
            Mail::Arrival(arrival) => connection::start(self, *arrival),
            Mail::Local(socket) => super::listen::greet_local(self, socket),
            Mail::Step(step) => self.turn(step),
            Mail::Stop => {
                self.is_stopping.set(true);
                self.turn(|shard, now, out| shard.stop(now, out));
                self.emptied.notify_one();
            }
        }
    }

    /// Sees to timers that are due and returns when the next one is.
    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        let now = self.clock().now();
        if self.look(|shard| shard.next_timeout()).is_some_and(|next| next <= now) {
            self.turn(|shard, now, out| shard.timeout(now, out));
        }
        let next = self.look(|shard| shard.next_timeout());
        self.armed.set(next);
        next
    }

    /// Says which task writes the outbox of a connection.
    pub(crate) fn set_waker(&self, id: LinkId, cx: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        let slot = id.slot as usize;
        if wakers.len() <= slot {
            wakers.resize(slot + 1, None);
        }
        match &mut wakers[slot] {
            Some((known, waker)) if *known == id => {
                if !waker.will_wake(cx.waker()) {
                    waker.clone_from(cx.waker());
                }
            }
            entry => *entry = Some((id, cx.waker().clone())),
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, id: LinkId, cause: Cause) {
        if let Some(entry) = self.wakers.borrow_mut().get_mut(id.slot as usize) {
            *entry = None;
        }
        self.turn(|shard, now, out| shard.closed(now, id, cause, out));
    }

    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        let mut scratch = self.scratch.take();
        scratch.resize(SCRATCH_BYTES, 0);
        scratch
    }

    pub(crate) fn put_scratch(&self, scratch: Vec<u8>) {
        self.scratch.set(scratch);
    }
}

/// Bytes of the buffer that sockets are read into.
pub(crate) const SCRATCH_BYTES: usize = 72 * 1024;
