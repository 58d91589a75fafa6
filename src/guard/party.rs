//! Parties: clients, users and addresses, with what each has taken.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ipnet::{IpNet, Ipv6Net};

use crate::{
    allowance::{Allowance, Meter, Rates},
    time::Timestamp,
};

use super::{Banned, GuardLimits};

/// What one party may take; zero is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartyLimits {
    /// Connections at a time.
    pub connections_max: usize,
    /// New connections in a minute.
    pub connects_per_minute_max: u64,
    /// Seconds for which who connects more often is banned; zero refuses it for as long as it does so.
    pub ban_secs: u32,
    /// Messages and bytes.
    pub rates: Rates,
}

/// A client, a user or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    Client(Arc<str>),
    User(Arc<str>),
    Address(IpAddr),
}

/// What is known of a party.
#[derive(Debug)]
pub(super) struct Account {
    connections: AtomicUsize,
    connects: Meter,
    allowance: Arc<Allowance>,
    has_rates: bool,
}

/// All parties that a limit concerns.
#[derive(Debug, Default)]
pub(super) struct Parties {
    accounts: HashMap<Party, Arc<Account>>,
    /// How many there may be before those are forgotten that nothing has to be known of any more.
    sweep_at: usize,
}

/// One connection of a party, for as long as this is kept.
#[derive(Debug)]
pub struct Stay {
    account: Arc<Account>,
}

/// Parties below which no look is taken for those that can be forgotten.
const SWEPT_MIN: usize = 1024;

impl PartyLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.connections_max == 0 && self.connects_per_minute_max == 0 && self.rates.is_unlimited()
    }
}

impl Party {
    /// Of IPv6, whoever has an address has all of its network of 64 bits.
    pub(super) fn of_address(address: IpAddr) -> Party {
        Party::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        })
    }

    /// The same, to be banned.
    pub(super) fn banned(&self) -> Banned {
        match self {
            Party::Client(id) => Banned::Client(id.clone()),
            Party::User(user) => Banned::User(user.clone()),
            Party::Address(IpAddr::V6(address)) => Banned::Network(
                Ipv6Net::new(*address, 64).map_or(IpNet::from(IpAddr::V6(*address)), IpNet::V6),
            ),
            Party::Address(address) => Banned::Network((*address).into()),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Client(id) => write!(f, "client '{id}'"),
            Party::User(user) => write!(f, "user '{user}'"),
            Party::Address(address) => write!(f, "address {address}"),
        }
    }
}

impl Account {
    fn new(limits: &PartyLimits) -> Account {
        let account = Account {
            connections: AtomicUsize::new(0),
            connects: Meter::default(),
            allowance: Arc::new(Allowance::new(&limits.rates)),
            has_rates: !limits.rates.is_unlimited(),
        };
        account.set(limits);
        account
    }

    fn set(&self, limits: &PartyLimits) {
        self.connects.set_per_minute(limits.connects_per_minute_max);
        self.allowance.set(&limits.rates);
    }

    /// Counts a new connection, if it does not come too soon.
    pub(super) fn connects_too_often(&self, now: Timestamp) -> bool {
        let is_too_soon = self.connects.wait(now, 1) > 0;
        if !is_too_soon {
            self.connects.charge(now, 1);
        }
        is_too_soon
    }

    /// Whether it makes no difference if this is forgotten.
    fn is_forgettable(&self, now: Timestamp) -> bool {
        self.connections.load(Ordering::Relaxed) == 0 && self.connects.is_settled(now)
    }
}

impl Parties {
    /// The account of a party, made if there is none.
    pub(super) fn account(&mut self, now: Timestamp, party: &Party, limits: &PartyLimits) -> Arc<Account> {
        if self.accounts.len() >= self.sweep_at.max(SWEPT_MIN) {
            self.accounts.retain(|_, account| !account.is_forgettable(now));
            self.sweep_at = self.accounts.len() * 2;
        }
        self.accounts.entry(party.clone()).or_insert_with(|| Arc::new(Account::new(limits))).clone()
    }

    pub(super) fn set_limits(&mut self, limits: &GuardLimits) {
        for (party, account) in &self.accounts {
            account.set(match party {
                Party::Client(_) => &limits.client,
                Party::User(_) => &limits.user,
                Party::Address(_) => &limits.address,
            });
        }
    }
}

impl Stay {
    /// Counts a connection in, if there is room for it.
    pub(super) fn new(account: Arc<Account>, limits: &PartyLimits) -> Option<Stay> {
        let before = account.connections.fetch_add(1, Ordering::Relaxed);
        let stay = Stay { account };
        (limits.connections_max == 0 || before < limits.connections_max).then_some(stay)
    }

    /// What may pass, if that is limited.
    pub(super) fn allowance(&self) -> Option<Arc<Allowance>> {
        self.account.has_rates.then(|| self.account.allowance.clone())
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.account.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
