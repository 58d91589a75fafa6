//! The broker of a run: real shards, and what the shell has round them, stepped.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dunlin::{
    acl::{Action, Authorize, Decision, Principal, RuleId},
    broker::{Event as Happened, Forward, Outputs, Sequence, Shard, Shared},
    limits::{Durability, Limits, Overflow, Parking},
    session::{Fetched, LinkId, StoredSession},
    store::{Condition, DiskOptions, Recovered},
    time::Timestamp,
};

use super::{
    features::{Feature, Features},
    keeper::Keeper,
    medium::Disk,
    rng::Rng,
};

/// Nobody with this in its client identifier may subscribe to [`FORBIDDEN`].
pub(crate) const NO_SUBSCRIBER: &str = "deaf";
/// Nobody with this in its client identifier may publish to [`FORBIDDEN`].
pub(crate) const NO_PUBLISHER: &str = "mute";
/// A topic, and a filter.
pub(crate) const FORBIDDEN: &str = "t/2";

/// How a broker is set up: the same after each restart.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) shards: usize,
    pub(crate) limits: Limits,
    pub(crate) parking: Parking,
    pub(crate) is_lasting: bool,
}

impl Rules {
    pub(crate) fn of(features: Features, rng: &mut Rng) -> Rules {
        let mut limits = Limits { outbox_bytes_max: 1500, ..Limits::default() };
        if features.has(Feature::SmallWindows) {
            limits.receive_maximum = 1 + rng.below(8) as u16;
            limits.inflight_messages_max = 1 + rng.below(8) as u16;
        }
        if features.has(Feature::SmallQueues) {
            let policies =
                [Overflow::Reject, Overflow::DropOldest, Overflow::DropNewest, Overflow::Backpressure];
            limits.session_queue_messages_max = 3 + rng.below(12) as usize;
            limits.queues_messages_max = 10 + rng.below(40) as usize;
            limits.session_queue_overflow = policies[rng.below(4) as usize];
            limits.queues_overflow = policies[rng.below(4) as usize];
        }
        let parking = match features.has(Feature::Parking) {
            true => Parking {
                messages_max: 1 + rng.below(4) as usize,
                bytes_max: 20 + rng.below(200) as usize,
                spare_bytes_max: 100 * rng.below(2) as usize,
                index_bytes_max: [0, 0, 60, 1000][rng.below(4) as usize],
                run_messages_max: 1 + rng.below(3) as usize,
            },
            false => Parking::default(),
        };
        let shards = 1 + rng.below(4) as usize;
        Rules { shards, limits, parking, is_lasting: !features.has(Feature::Memory) }
    }

    /// Whether a message that was accepted may be dropped for want of room in a queue.
    pub(crate) fn may_drop(&self) -> bool {
        let drops = |policy| matches!(policy, Overflow::DropOldest | Overflow::DropNewest);
        drops(self.limits.session_queue_overflow) || drops(self.limits.queues_overflow)
    }

    fn options(&self) -> DiskOptions {
        DiskOptions {
            cache_bytes: 1 << 20,
            index_bytes_max: self.parking.index_bytes_max,
            run_messages_max: self.parking.run_messages_max,
        }
    }
}

/// Refuses by names.
struct Refusing;

impl Authorize for Refusing {
    fn decide(&self, _: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        let refused = match action {
            Action::Publish { .. } => NO_PUBLISHER,
            Action::Subscribe { .. } => NO_SUBSCRIBER,
            Action::Receive => return Decision::Allowed,
        };
        if topic == FORBIDDEN && client_id.contains(refused) {
            Decision::Denied(RuleId::DEFAULT)
        } else {
            Decision::Allowed
        }
    }
}

/// Something for a shard from elsewhere.
pub(crate) enum Mail {
    Forward(Forward),
    Committed(u64),
    Fetched(Fetched),
}

/// A shard, and what is on its way to it.
pub(crate) struct Node {
    pub(crate) shard: Shard,
    pub(crate) out: Outputs,
    pub(crate) mail: VecDeque<Mail>,
}

/// Whose connection a link is.
pub(crate) struct Joined {
    pub(crate) wire: usize,
    pub(crate) client_id: String,
}

/// A broker that runs.
pub(crate) struct Broker {
    pub(crate) links: BTreeMap<(usize, LinkId), Joined>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keeper: Option<Keeper>,
    /// What the store had of each session, for the trace.
    pub(crate) found: Vec<String>,
}

impl Broker {
    /// Starts a broker on what is on the disk. `lost_at` is when the one before ended without notice.
    pub(crate) fn start(rules: &Rules, disk: &Disk, now: u64, lost_at: u64) -> Result<Broker, String> {
        let opened = rules.is_lasting.then(|| Keeper::open(disk, rules.options(), now)).transpose()?;
        let (keeper, recovered) = opened.unzip();
        let mut shared = Shared::new(rules.limits.clone(), rules.shards, 7);
        shared.is_lasting = rules.is_lasting;
        shared.parking = rules.is_lasting.then_some(rules.parking);
        shared.authorize = Arc::new(Refusing);
        let at = Timestamp::from_millis(now);
        if let Some(recovered) = &recovered {
            shared.sequence = Sequence::starting_at(recovered.next);
            for message in &recovered.retained {
                shared.retained.restore(message, &shared.topic_limits(), at);
            }
        }
        let shared = Arc::new(shared);
        let node = |index: usize| Node {
            shard: Shard::new(index as u16, shared.clone(), at),
            out: Outputs::default(),
            mail: VecDeque::new(),
        };
        let nodes = (0..rules.shards).map(node).collect();
        let mut broker = Broker { links: BTreeMap::new(), shared, nodes, keeper, found: Vec::new() };
        if let Some(Recovered { sessions, .. }) = recovered {
            for session in sessions {
                broker.found.push(describe(&session));
                let home = shard_of(&session.client_id, rules.shards);
                let lost_at = Timestamp::from_millis(lost_at);
                broker.nodes[home].shard.restore(vec![session], lost_at);
            }
        }
        Ok(broker)
    }

    /// When a timer of a shard is due.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.nodes.iter().filter_map(|node| node.shard.next_timeout()).min().map(Timestamp::as_millis)
    }

    /// Steps a shard, then sees to what it wants of the store and of other shards. What is left is which links
    /// were touched, and what happened.
    pub(crate) fn turn<T>(
        &mut self,
        now: u64,
        index: usize,
        step: impl FnOnce(&mut Shard, Timestamp, &mut Outputs) -> T,
    ) -> (T, Vec<LinkId>, Vec<Happened>) {
        let at = Timestamp::from_millis(now);
        let node = &mut self.nodes[index];
        let result = step(&mut node.shard, at, &mut node.out);
        // The store comes first: nobody hears of a change before it does.
        while let Some(batch) = node.shard.take_batch() {
            match &mut self.keeper {
                Some(keeper) => keeper.submit(now, index as u16, batch),
                None => node.shard.committed(at, batch.commit, &mut node.out),
            }
        }
        for fetch in node.out.fetches.drain(..) {
            if let Some(keeper) = &mut self.keeper {
                keeper.fetch(now, index as u16, fetch);
            }
        }
        node.out.forwarded = 0;
        let touched = std::mem::take(&mut node.out.touched);
        let events = std::mem::take(&mut node.out.events);
        for (shard, forward) in std::mem::take(&mut node.out.forwards) {
            self.nodes[usize::from(shard)].mail.push_back(Mail::Forward(forward));
        }
        (result, touched, events)
    }

    /// Takes in what the store says of itself. Whether it has failed.
    pub(crate) fn hear_condition(&mut self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let Some(condition) = self.keeper.as_ref().and_then(Keeper::condition) else { return false };
        self.shared.store_crowded.store(condition == Condition::Crowded, Relaxed);
        match condition {
            Condition::Full => self.shared.store_full.store(true, Relaxed),
            Condition::Ready => self.shared.store_full.store(false, Relaxed),
            Condition::Crowded => {}
            Condition::Failed(_) => return true,
        }
        false
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.nodes.iter().map(|node| &node.shard)
    }

    /// Whether nothing is on its way between shards, or from or to the store.
    pub(crate) fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| node.mail.is_empty())
            && self.keeper.as_ref().is_none_or(|keeper| !keeper.is_busy && keeper.unsure_since().is_none())
    }

    /// Messages that are on their way from shard to shard.
    pub(crate) fn forwards(&self) -> usize {
        let mail = self.nodes.iter().flat_map(|node| &node.mail);
        mail.filter(|mail| matches!(mail, Mail::Forward(_))).count()
    }
}

fn describe(session: &StoredSession) -> String {
    let StoredSession { client_id, presence, messages, shared, owned, next_number, .. } = session;
    let will = if session.will.is_some() { ", a will" } else { "" };
    let (messages, shared, owned) = (messages.len(), shared.len(), owned.len());
    format!(
        "{client_id}: {presence:?}, {messages} + {shared} messages, {owned} owned, next {next_number}{will}"
    )
}

/// The shard of a client: any hash will do that is the same in every run.
pub(crate) fn shard_of(client_id: &str, shards: usize) -> usize {
    let hash = client_id.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (hash >> 32) as usize % shards
}

/// What a listener promises to a client.
pub(crate) fn durability(features: Features, rng: &mut Rng) -> Durability {
    match features.has(Feature::Lax) {
        true => match rng.below(3) {
            0 => Durability::Commit,
            1 => Durability::Interval(Duration::from_millis(100)),
            _ => Durability::None,
        },
        false => Durability::Commit,
    }
}
