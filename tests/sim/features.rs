//! What a seed switches on. Each seed has about half of everything, for faults that need a quiet world to show
//! are as common as those that need a wild one.

use std::fmt;

use super::rng::Rng;

/// One thing that may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Feature {
    /// The process is killed and started again.
    Kill,
    /// The power fails, at any operation of the disk: of what was not synced, anything may be there.
    PowerLoss,
    /// The disk is full for a while.
    DiskFull,
    /// A write or sync of the disk fails, and the broker has to stop.
    DiskError,
    /// Nothing is kept on disk.
    Memory,
    /// Connections are cut.
    Cuts,
    /// Connections end without the broker hearing of it.
    HalfOpen,
    /// What is sent arrives in pieces.
    Fragments,
    /// The network and the store take their time.
    Delays,
    /// Clients stop reading for a while.
    Stalls,
    /// Clients have wills.
    Wills,
    /// Messages are retained.
    Retained,
    /// There is a shared subscription.
    Shared,
    /// Topic aliases are used, both ways.
    Aliases,
    /// Sessions expire.
    SessionExpiry,
    /// Messages expire.
    MessageExpiry,
    /// Clients connect while they are connected.
    Takeover,
    /// Clients want a new session now and then.
    CleanStart,
    /// Receive Maximum is small, on both sides.
    SmallWindows,
    /// Queues are small.
    SmallQueues,
    /// Clients unsubscribe.
    Unsubscribe,
    /// Some may not do some things.
    Denied,
    /// Some messages are large.
    Large,
    /// Clients take packets up to a size only.
    PacketMaximum,
    /// Clients have a Keep Alive, and some forget it.
    KeepAlive,
    /// Some listeners promise less.
    Lax,
    /// Little of a queue is kept in memory.
    Parking,
    /// Acknowledgements of clients come late, and in any order.
    LateAcks,
}

use Feature::*;

impl Feature {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Feature; 28] = [
        Kill,
        PowerLoss,
        DiskFull,
        DiskError,
        Memory,
        Cuts,
        HalfOpen,
        Fragments,
        Delays,
        Stalls,
        Wills,
        Retained,
        Shared,
        Aliases,
        SessionExpiry,
        MessageExpiry,
        Takeover,
        CleanStart,
        SmallWindows,
        SmallQueues,
        Unsubscribe,
        Denied,
        Large,
        PacketMaximum,
        KeepAlive,
        Lax,
        Parking,
        LateAcks,
    ];

    /// One seed in so many has it.
    fn rarity(self) -> u64 {
        match self {
            DiskFull | DiskError | Memory | HalfOpen | SmallQueues | Denied | PacketMaximum | Lax => 4,
            _ => 2,
        }
    }
}

/// A set of features.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features(u32);

impl Features {
    /// Those of a seed, but for some.
    pub(crate) fn of(rng: &mut Rng, off: Features) -> Features {
        let mut features = Features::default();
        for feature in Feature::ALL {
            if rng.one_in(feature.rarity()) {
                features = features.with(feature);
            }
        }
        if features.has(Memory) {
            for disk in [Kill, PowerLoss, DiskFull, DiskError] {
                features = features.without(disk);
            }
        }
        // What is acknowledged survives where that was promised.
        if features.has(Kill) || features.has(PowerLoss) || features.has(DiskError) {
            features = features.without(Lax);
        }
        Features(features.0 & !off.0)
    }

    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u32 != 0
    }

    pub(crate) fn with(self, feature: Feature) -> Features {
        Features(self.0 | 1 << feature as u32)
    }

    fn without(self, feature: Feature) -> Features {
        Features(self.0 & !(1 << feature as u32))
    }

    /// Those that a text names, divided by commas.
    pub(crate) fn parse(text: &str) -> Result<Features, String> {
        let mut features = Features::default();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            let known = Feature::ALL.into_iter().find(|feature| format!("{feature:?}") == name);
            features =
                features.with(known.ok_or_else(|| format!("'{name}' is no feature of the simulator"))?);
        }
        Ok(features)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|feature| format!("{feature:?}")).collect();
        f.write_str(&names.join(","))
    }
}
