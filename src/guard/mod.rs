//! Who is kept out, and how much each client, user and address may take.
//!
//! Everything here is told the time, and answers from memory. Nothing is kept of clients, users and addresses
//! that no limit concerns.

mod ban;
mod party;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;

pub use ban::{Ban, BanFileError, Banned, Bans, network, rfc3339};
pub use party::{PartyLimits, Stay};

use crate::{allowance::Allowance, codec::ReasonCode, time::Timestamp};

use party::{Parties, Party};

/// The limits of each kind of party.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardLimits {
    /// Of each client identifier.
    pub client: PartyLimits,
    /// Of each user name.
    pub user: PartyLimits,
    /// Of each address; of IPv6, each network of 64 bits.
    pub address: PartyLimits,
}

/// Keeps out who is banned or takes too much.
#[derive(Debug, Default)]
pub struct Guard {
    limits: ArcSwap<GuardLimits>,
    bans: ArcSwap<Bans>,
    parties: Mutex<Parties>,
    contended: Mutex<HashMap<Arc<str>, Contention>>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The reason code for CONNACK.
    pub code: ReasonCode,
    /// Why, in words.
    pub why: String,
}

/// A client that is let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// What may pass on its connection.
    pub allowances: Vec<Arc<Allowance>>,
    /// Counts it for as long as this is kept.
    pub stays: Vec<Stay>,
}

/// Takeovers of one client identifier.
#[derive(Debug)]
struct Contention {
    since: Timestamp,
    times: u32,
}

/// Takeovers of one client identifier within [`CONTENTION_SPAN`] that are no accident.
const CONTENTION_TIMES: u32 = 3;
const CONTENTION_SPAN: Duration = Duration::from_secs(60);
/// Client identifiers whose takeovers are counted at a time.
const CONTENDED_MAX: usize = 1024;

impl Guard {
    /// From now on these limits hold, also for who is connected.
    pub fn set_limits(&self, limits: GuardLimits) {
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        parties.set_limits(&limits);
        self.limits.store(Arc::new(limits));
    }

    /// From now on these are banned, and who was banned for what it did.
    pub fn set_bans(&self, bans: Bans) {
        self.bans.store(Arc::new(bans));
    }

    /// Bans somebody.
    pub fn ban(&self, now: Timestamp, ban: &Ban) {
        self.bans.rcu(|bans| {
            let mut bans = Bans::clone(bans);
            bans.expire(now);
            bans.add(ban.clone());
            bans
        });
    }

    /// The bans of now.
    pub fn bans(&self) -> Arc<Bans> {
        self.bans.load_full()
    }

    /// Somebody connects from an address: asked before anything is said.
    ///
    /// # Errors
    /// [`Turned`] if it is banned, has too many connections, or connects too often.
    pub fn arrive(&self, now: Timestamp, address: Option<IpAddr>) -> Result<Option<Stay>, Turned> {
        let Some(address) = address else { return Ok(None) };
        if let Some(ban) = self.bans.load().of_address(now, address) {
            return Err(banned(ban));
        }
        let limits = self.limits.load();
        self.enter(now, &Party::of_address(address), &limits.address)
    }

    /// A client has proved who it is. `at` is what [`Guard::arrive`] has returned.
    ///
    /// # Errors
    /// [`Turned`] likewise.
    pub fn admit(
        &self,
        now: Timestamp,
        client_id: &str,
        user: Option<&str>,
        at: Option<Stay>,
    ) -> Result<Admitted, Turned> {
        if let Some(ban) = self.bans.load().of_client(now, client_id, user) {
            return Err(banned(ban));
        }
        let limits = self.limits.load();
        let client = self.enter(now, &Party::Client(client_id.into()), &limits.client)?;
        let user = match user {
            Some(user) => self.enter(now, &Party::User(user.into()), &limits.user)?,
            None => None,
        };
        let stays: Vec<Stay> = [client, user, at].into_iter().flatten().collect();
        let allowances = stays.iter().filter_map(Stay::allowance).collect();
        Ok(Admitted { allowances, stays })
    }

    fn enter(&self, now: Timestamp, party: &Party, limits: &PartyLimits) -> Result<Option<Stay>, Turned> {
        if limits.is_unlimited() {
            return Ok(None);
        }
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        let account = parties.account(now, party, limits);
        if account.connects_too_often(now) {
            let why = format!("{party} connects more than {} times a minute", limits.connects_per_minute_max);
            drop(parties);
            if limits.ban_secs > 0 {
                let until = Some(now.plus_secs(limits.ban_secs));
                self.ban(now, &Ban { banned: party.banned(), until, why: why.as_str().into() });
            }
            return Err(Turned { code: ReasonCode::ConnectionRateExceeded, why });
        }
        let stay = Stay::new(account, limits);
        stay.map(Some).ok_or_else(|| Turned {
            code: ReasonCode::QuotaExceeded,
            why: format!("{party} has {} connections, as many as it may", limits.connections_max),
        })
    }

    /// A client has taken over the connection of another with its identifier. True if that has happened often
    /// lately, and was not said lately: two clients have the same identifier.
    pub fn is_contended(&self, now: Timestamp, client_id: &Arc<str>) -> bool {
        let mut contended = self.contended.lock().unwrap_or_else(PoisonError::into_inner);
        let span = CONTENTION_SPAN.as_millis() as u64;
        if contended.len() >= CONTENDED_MAX {
            contended.retain(|_, contention| now.millis_since(contention.since) < span);
        }
        if contended.len() >= CONTENDED_MAX && !contended.contains_key(client_id) {
            return false;
        }
        let contention = contended.entry(client_id.clone()).or_insert(Contention { since: now, times: 0 });
        if now.millis_since(contention.since) >= span {
            *contention = Contention { since: now, times: 0 };
        }
        contention.times += 1;
        contention.times == CONTENTION_TIMES
    }
}

fn banned(ban: &Ban) -> Turned {
    let until = ban.until.map_or_else(String::new, |until| format!(" until {}", rfc3339(until)));
    let why = if ban.why.is_empty() { String::new() } else { format!(": {}", ban.why) };
    Turned { code: ReasonCode::Banned, why: format!("{} is banned{until}{why}", ban.banned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn guard(change: impl FnOnce(&mut GuardLimits)) -> Arc<Guard> {
        let guard = Arc::new(Guard::default());
        let mut limits = GuardLimits::default();
        change(&mut limits);
        guard.set_limits(limits);
        guard
    }

    #[test]
    fn connections_of_a_party_are_counted_while_they_stay() {
        let guard = guard(|limits| {
            limits.user.connections_max = 2;
            limits.address.connections_max = 3;
        });
        let address = Some("192.0.2.1".parse().unwrap());
        let enter = |client: &str, user| {
            let stay = guard.arrive(at(0), address)?;
            guard.admit(at(0), client, Some(user), stay)
        };
        let first = enter("a", "ann").unwrap();
        let second = enter("b", "ann").unwrap();
        assert_eq!(enter("c", "ann").unwrap_err().code, ReasonCode::QuotaExceeded);
        let third = enter("c", "bob").unwrap();
        assert!(enter("d", "cid").unwrap_err().why.contains("192.0.2.1 has 3"));
        drop(first);
        let fourth = enter("c", "ann").unwrap();
        drop((second, third, fourth));
    }

    #[test]
    fn ipv6_addresses_of_one_network_are_one_party() {
        let guard = guard(|limits| limits.address.connections_max = 1);
        let kept = guard.arrive(at(0), Some("2001:db8::1".parse().unwrap())).unwrap();
        assert!(guard.arrive(at(0), Some("2001:db8::ffff:2".parse().unwrap())).is_err());
        assert!(guard.arrive(at(0), Some("2001:db8:0:1::1".parse().unwrap())).is_ok());
        drop(kept);
    }

    #[test]
    fn who_connects_too_often_is_refused_and_banned_for_a_while() {
        let guard = guard(|limits| {
            limits.client.connects_per_minute_max = 3;
            limits.client.ban_secs = 60;
        });
        let connect =
            |millis| guard.admit(at(millis), "flap", None, None).map(drop).map_err(|turned| turned.code);
        let codes: Vec<_> = (0..5).map(connect).collect();
        let (rate, banned) = (Err(ReasonCode::ConnectionRateExceeded), Err(ReasonCode::Banned));
        assert_eq!(codes, [Ok(()), Ok(()), Ok(()), rate, banned]);
        assert!(guard.admit(at(0), "calm", None, None).is_ok());
        assert_eq!(connect(61_000), Ok(()));
    }

    #[test]
    fn new_limits_hold_for_who_is_connected() {
        let guard = guard(|limits| limits.user.rates.messages_in_per_sec = 10);
        let admitted = guard.admit(at(0), "a", Some("ann"), None).unwrap();
        let mut limits = GuardLimits::default();
        limits.user.rates.messages_in_per_sec = 1;
        guard.set_limits(limits);
        admitted.allowances[0].charge_in(at(0), 0);
        assert_eq!(admitted.allowances[0].wait_in(at(0), 0), 1000);
    }

    #[test]
    fn two_clients_that_fight_for_an_identifier_are_told_once_a_minute() {
        let guard = guard(|_| {});
        let id: Arc<str> = "twin".into();
        let told: Vec<u64> = (0..30).filter(|second| guard.is_contended(at(second * 10_000), &id)).collect();
        assert_eq!(told, [2, 8, 14, 20, 26]);
    }
}
