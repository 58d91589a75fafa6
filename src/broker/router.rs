//! Which sessions get a message: one index of all subscriptions, which all shards share.
//!
//! A publisher's shard matches a topic once for all shards. It keeps what it found per topic name, so that
//! a topic in use costs one look-up and no lock until any subscription changes.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::{
    codec::QoS,
    limits::Limits,
    message::Message,
    mutation::{self, Mutation},
    session::{Presence, SessionHandle, Subscription},
    topic::{self, FilterTree, TopicError, TopicFilter, TopicLimits},
};

/// One session that gets a message, with what its matching subscriptions say together.
#[derive(Clone, Debug)]
pub struct Target {
    /// The session.
    pub session: Arc<SessionHandle>,
    /// The highest granted QoS. `[MQTT-3.3.4-2]`
    pub qos: QoS,
    /// Whether RETAIN is forwarded as published. `[MQTT-3.3.1-12]` `[MQTT-3.3.1-13]`
    pub retain_as_published: bool,
    /// Identifiers of those that have one. `[MQTT-3.3.4-3]`
    pub subscription_ids: Option<Arc<[NonZeroU32]>>,
    /// The whole text of the shared filter, if it is one.
    pub share: Option<Arc<str>>,
    /// What the session gets if it is the publisher itself.
    pub own: Own,
}

/// What a session gets of its own messages.
#[derive(Clone, Debug)]
pub enum Own {
    /// The same as of others'.
    Same,
    /// Nothing: all its subscriptions say No Local. `[MQTT-3.8.3-3]`
    Nothing,
    /// What its other subscriptions say.
    Reduced(Box<Target>),
}

/// Everybody who gets the messages of one topic.
#[derive(Debug, Default)]
pub struct Route {
    /// Sessions by the shard that owns them.
    pub shards: Vec<(u16, Arc<[Target]>)>,
    /// Shared subscriptions, each of which gives the message to one member.
    pub groups: Vec<SharedRoute>,
}

/// One member of a shared subscription: as a list of one, which is what a message is dispatched to.
pub(super) type Member = Arc<[Target]>;

/// A shared subscription with its members at the time that a route was made.
#[derive(Debug)]
pub struct SharedRoute {
    group: Arc<Group>,
    members: Vec<Member>,
}

/// Members of shared subscriptions that get a message, each with the shard that owns it.
pub(super) struct Picks {
    pub(super) members: SmallVec<[(u16, Member); 1]>,
    /// Shared subscriptions of which no member can have it.
    pub(super) missed: u64,
}

impl Route {
    /// One member of each shared subscription.
    pub(super) fn pick(&self, message: &Message, limits: &Limits) -> Picks {
        let mut picks = Picks { members: SmallVec::new(), missed: 0 };
        for shared in &self.groups {
            let member = shared.group.pick_of(&shared.members, message, None, limits);
            match member.and_then(|member| Some((member.first()?.session.shard, member.clone()))) {
                Some(picked) => picks.members.push(picked),
                None => picks.missed += 1,
            }
        }
        picks
    }

    /// Its size in bytes.
    fn weight(&self) -> usize {
        let targets: usize = self.shards.iter().map(|(_, targets)| targets.len()).sum();
        let members: usize = self.groups.iter().map(|shared| shared.members.len()).sum();
        targets * size_of::<Target>()
            + self.groups.len() * size_of::<SharedRoute>()
            + members * size_of::<Member>()
    }
}

/// One shared subscription: a share name with a filter.
#[derive(Debug, Default)]
pub struct Group {
    members: RwLock<Vec<Member>>,
    /// Counts messages: whose turn it is.
    next: AtomicUsize,
}

/// All subscriptions of the broker.
#[derive(Debug)]
pub struct Router {
    filters: RwLock<FilterTree<Subscribers>>,
    /// Counts changes, so that a shard knows when what it remembers is old.
    generation: AtomicU64,
    subscriptions: AtomicUsize,
}

/// Who subscribed to one pattern.
#[derive(Debug, Default)]
struct Subscribers {
    direct: Direct,
    /// By the whole text of the filter, so that the order of delivery does not depend on who came first.
    groups: BTreeMap<TopicFilter, Arc<Group>>,
}

/// Subscriptions that are not shared: few in a sorted list, many in a tree.
#[derive(Debug)]
enum Direct {
    Few(Vec<Entry>),
    Many(BTreeMap<(u16, u32), Entry>),
}

#[derive(Clone, Debug)]
struct Entry {
    session: Arc<SessionHandle>,
    subscription: Subscription,
}

/// Longest list of [`Direct::Few`].
const FEW: usize = 32;

impl Router {
    /// A router without subscriptions; `seed` is for its hash table.
    pub fn new(seed: u64) -> Router {
        Router {
            filters: RwLock::new(FilterTree::new(seed)),
            generation: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// Adds a subscription, or replaces the session's one with the same filter. `[MQTT-3.8.4-3]`
    pub fn subscribe(&self, filter: &TopicFilter, session: &Arc<SessionHandle>, subscription: Subscription) {
        self.subscribe_all([(filter, session, subscription)]);
    }

    /// As [`Router::subscribe`], for several at a time.
    pub fn subscribe_all<'a>(
        &self,
        subscriptions: impl IntoIterator<Item = (&'a TopicFilter, &'a Arc<SessionHandle>, Subscription)>,
    ) {
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (filter, session, subscription) in subscriptions {
            let subscribers = filters.get_or_insert_with(filter, Subscribers::default);
            let is_new = match filter.share_name() {
                None => subscribers.direct.insert(Entry { session: session.clone(), subscription }),
                Some(_) => subscribers.join(filter, session, subscription),
            };
            count += usize::from(is_new);
        }
        self.subscriptions.fetch_add(count, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Makes room for so many more filters without wildcards, and with.
    pub fn reserve(&self, exact: usize, wildcards: usize) {
        self.filters.write().unwrap_or_else(PoisonError::into_inner).reserve(exact, wildcards);
    }

    /// Removes a subscription.
    pub fn unsubscribe(&self, filter: &TopicFilter, session: &SessionHandle) {
        if mutation::is_on(Mutation::UnsubscribeForgotten) {
            return;
        }
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        let Some(subscribers) = filters.get_mut(filter.pattern()) else { return };
        let was_there = match filter.share_name() {
            None => subscribers.direct.remove(session),
            Some(_) => subscribers.leave(filter, session),
        };
        if subscribers.is_empty() {
            filters.remove(filter);
        }
        if was_there {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Subscriptions of all sessions.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// The group of a shared filter, if it has members.
    pub fn group(&self, filter: &str, limits: &TopicLimits) -> Option<Arc<Group>> {
        let filter = TopicFilter::parse(filter, limits).ok()?;
        let filters = self.filters.read().unwrap_or_else(PoisonError::into_inner);
        filters.get(filter.pattern())?.groups.get(&filter).cloned()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn route(&self, topic: &str) -> Route {
        let mut entries = Vec::new();
        let mut groups = Vec::new();
        let filters = self.filters.read().unwrap_or_else(PoisonError::into_inner);
        filters.for_each_match(topic, |subscribers: &Subscribers| {
            subscribers.direct.for_each(|entry| entries.push(entry.clone()));
            groups.extend(subscribers.groups.values().map(Group::route));
        });
        drop(filters);
        // Stable, so that the subscriptions of one session stay in the order of the tree.
        entries.sort_by_key(Entry::key);
        let mut shards: Vec<(u16, Vec<Target>)> = Vec::new();
        for entries in entries.chunk_by(|a, b| a.key() == b.key()) {
            let target = merge(entries);
            match shards.last_mut() {
                Some((shard, targets)) if *shard == target.session.shard => targets.push(target),
                Some(_) | None => shards.push((target.session.shard, vec![target])),
            }
        }
        Route { shards: shards.into_iter().map(|(shard, targets)| (shard, targets.into())).collect(), groups }
    }
}

/// The subscriptions of one session that match one topic, as one target: the message is sent once.
fn merge(entries: &[Entry]) -> Target {
    let mut target = merge_all(&entries.iter());
    let local_count = entries.iter().filter(|entry| entry.subscription.options.no_local).count();
    if local_count == entries.len() {
        target.own = Own::Nothing;
    } else if local_count > 0 {
        let others = entries.iter().filter(|entry| !entry.subscription.options.no_local);
        target.own = Own::Reduced(Box::new(merge_all(&others)));
    }
    target
}

fn merge_all<'a>(entries: &(impl Iterator<Item = &'a Entry> + Clone)) -> Target {
    let options = entries.clone().map(|entry| entry.subscription.options);
    let ids: Vec<NonZeroU32> = entries.clone().filter_map(|entry| entry.subscription.id).collect();
    let first = entries.clone().next().expect("a session is a target only if a subscription of it matches");
    Target {
        session: first.session.clone(),
        qos: options.clone().map(|options| options.qos).max().unwrap_or_default(),
        retain_as_published: options.clone().any(|options| options.retain_as_published),
        subscription_ids: if ids.is_empty() { None } else { Some(ids.into()) },
        share: None,
        own: Own::Same,
    }
}

/// Whether one more message is within the limits of a session's queue.
pub(super) fn has_room(session: &SessionHandle, message: &Message, limits: &Limits) -> bool {
    session.queued_messages() < limits.session_queue_messages_max
        && session.queued_bytes() + message.size_bytes() <= limits.session_queue_bytes_max
}

impl Entry {
    fn key(&self) -> (u16, u32) {
        key(&self.session)
    }
}

fn key(session: &SessionHandle) -> (u16, u32) {
    (session.shard, session.slot)
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.direct.is_empty()
    }

    /// Adds a member to a group, or changes it. True if it is new.
    fn join(
        &mut self,
        filter: &TopicFilter,
        session: &Arc<SessionHandle>,
        subscription: Subscription,
    ) -> bool {
        let member = Target {
            session: session.clone(),
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            subscription_ids: subscription.id.map(|id| Arc::from([id])),
            share: Some(filter.as_str().into()),
            own: Own::Same,
        };
        let group = self.groups.entry(filter.clone()).or_default();
        let mut members = group.members.write().unwrap_or_else(PoisonError::into_inner);
        match members.iter_mut().find(|known| is_of(known, session)) {
            Some(known) => {
                *known = Arc::from([member]);
                false
            }
            None => {
                members.push(Arc::from([member]));
                true
            }
        }
    }

    /// Takes a member out of a group. True if it was in it.
    fn leave(&mut self, filter: &TopicFilter, session: &SessionHandle) -> bool {
        let Some(group) = self.groups.get(filter) else { return false };
        let mut members = group.members.write().unwrap_or_else(PoisonError::into_inner);
        let before = members.len();
        members.retain(|member| !is_of(member, session));
        let (was_there, is_empty) = (members.len() < before, members.is_empty());
        drop(members);
        if is_empty {
            self.groups.remove(filter);
        }
        was_there
    }
}

fn is_of(member: &Member, session: &SessionHandle) -> bool {
    member.iter().any(|target| target.session.is(session))
}

impl Group {
    fn route(self: &Arc<Group>) -> SharedRoute {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner).clone();
        SharedRoute { group: self.clone(), members }
    }

    /// Chooses who gets the next message: in turn, a member whose queue has room before one whose queue is
    /// full, one that can take it now before one that cannot, and a connected one before one that is away.
    /// Who is away gets none of QoS 0. `except` is not chosen.
    pub fn pick(&self, message: &Message, except: Option<&SessionHandle>, limits: &Limits) -> Option<Member> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        self.pick_of(&members, message, except, limits).cloned()
    }

    fn pick_of<'a>(
        &self,
        members: &'a [Member],
        message: &Message,
        except: Option<&SessionHandle>,
        limits: &Limits,
    ) -> Option<&'a Member> {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % members.len().max(1);
        let mut best: Option<(&Member, (bool, Presence))> = None;
        let (before, after) = members.split_at(start);
        for list in after.iter().chain(before) {
            let Some(member) = list.first() else { continue };
            let presence = member.session.presence();
            let is_lasting = message.qos().min(member.qos) > QoS::AtMostOnce;
            let is_able = presence > Presence::Offline || is_lasting;
            let is_excepted = except.is_some_and(|except| member.session.is(except));
            let has_room = !is_lasting || has_room(&member.session, message, limits);
            let rank = (has_room, presence);
            if is_able && !is_excepted && best.is_none_or(|(_, known)| rank > known) {
                best = Some((list, rank));
                if rank == (true, Presence::Ready) {
                    break;
                }
            }
        }
        best.map(|(member, _)| member)
    }

    /// Whether any member is connected.
    pub fn has_connected_member(&self) -> bool {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members
            .iter()
            .flat_map(|member| member.iter())
            .any(|member| member.session.presence() > Presence::Offline)
    }
}

impl Default for Direct {
    fn default() -> Self {
        Direct::Few(Vec::new())
    }
}

impl Direct {
    /// Adds or replaces an entry. True if it is new.
    fn insert(&mut self, entry: Entry) -> bool {
        match self {
            Direct::Few(few) => match few.binary_search_by_key(&entry.key(), Entry::key) {
                Ok(at) => {
                    few[at] = entry;
                    false
                }
                Err(at) if few.len() < FEW => {
                    if few.is_empty() {
                        few.reserve_exact(1);
                    }
                    few.insert(at, entry);
                    true
                }
                Err(_) => {
                    let many = std::mem::take(few).into_iter().chain([entry]);
                    *self = Direct::Many(many.map(|entry| (entry.key(), entry)).collect());
                    true
                }
            },
            Direct::Many(many) => many.insert(entry.key(), entry).is_none(),
        }
    }

    fn remove(&mut self, session: &SessionHandle) -> bool {
        match self {
            Direct::Few(few) => match few.binary_search_by_key(&key(session), Entry::key) {
                Ok(at) => {
                    few.remove(at);
                    true
                }
                Err(_) => false,
            },
            Direct::Many(many) => {
                let was_there = many.remove(&key(session)).is_some();
                if many.len() < FEW / 2 {
                    *self = Direct::Few(std::mem::take(many).into_values().collect());
                }
                was_there
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Direct::Few(few) => few.is_empty(),
            Direct::Many(many) => many.is_empty(),
        }
    }

    fn for_each(&self, mut f: impl FnMut(&Entry)) {
        match self {
            Direct::Few(few) => few.iter().for_each(&mut f),
            Direct::Many(many) => many.values().for_each(&mut f),
        }
    }
}

/// What one shard remembers of the router: routes of topic names in use.
#[derive(Debug)]
pub(crate) struct RouteCache {
    routes: HashMap<Arc<str>, (u64, Arc<Route>), FixedState>,
    /// Their size in bytes, names included.
    weight: usize,
}

/// Most topic names that a shard remembers.
const CACHED_TOPICS_MAX: usize = 16_384;
/// Most bytes of routes and names that a shard remembers.
const CACHED_BYTES_MAX: usize = 16 * 1024 * 1024;

impl RouteCache {
    pub(crate) fn new(seed: u64) -> RouteCache {
        RouteCache { routes: HashMap::with_hasher(FixedState::with_seed(seed)), weight: 0 }
    }

    /// The route of a topic name, and the name as it is kept.
    pub(crate) fn route(
        &mut self,
        router: &Router,
        topic: &str,
        limits: &TopicLimits,
    ) -> Result<(Arc<str>, Arc<Route>), TopicError> {
        let generation = router.generation();
        let known = self.routes.get_key_value(topic);
        if let Some((name, (seen, route))) = known
            && *seen == generation
        {
            return Ok((name.clone(), route.clone()));
        }
        let name = match known {
            Some((name, _)) => name.clone(),
            None => {
                topic::check_name(topic, limits)?;
                topic.into()
            }
        };
        // Read before matching: a change in between makes this route old, not a later one young.
        let route = Arc::new(router.route(topic));
        self.remember(&name, generation, route.clone());
        Ok((name, route))
    }

    fn remember(&mut self, name: &Arc<str>, generation: u64, route: Arc<Route>) {
        if self.routes.len() >= CACHED_TOPICS_MAX || self.weight > CACHED_BYTES_MAX {
            self.routes.clear();
            self.weight = 0;
        }
        self.weight += name.len() + route.weight();
        if let Some((_, old)) = self.routes.insert(name.clone(), (generation, route)) {
            self.weight -= name.len() + old.weight();
        }
    }
}
