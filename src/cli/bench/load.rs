//! What a run does, with all options resolved: who publishes what where, who subscribes to what, and when.

use super::{
    payload::{Content, Manner},
    schedule::Arrivals,
};

/// A whole run.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) mode: Mode,
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    /// Clients that only connect.
    pub(super) holders: u32,
    pub(super) layout: Layout,
    /// Topic or filter, with `%i` for a number.
    pub(super) topic: Pattern,
    /// The identifier of a client is this and a number.
    pub(super) id_prefix: String,
    pub(super) content: Content,
    pub(super) manner: Manner,
    pub(super) pace: Pace,
    /// Messages of all publishers together.
    pub(super) messages_max: u64,
    /// Messages of a publisher that are under way at most.
    pub(super) window_messages_max: u16,
    pub(super) warmup_ns: u64,
    /// From the end of the warm-up on; `u64::MAX` if something else ends the run.
    pub(super) duration_ns: u64,
    pub(super) connecting: Connecting,
    pub(super) seed: u64,
    pub(super) threads: u32,
}

/// The four commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pub,
    Sub,
    Connect,
    Latency,
}

/// Who gets what from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Layout {
    /// Each publisher has a topic and a subscriber of its own
    Pairs,
    /// Each publisher has a topic of its own, each subscriber gets all of them
    FanIn,
    /// All publishers share a topic, each subscriber gets it
    FanOut,
}

/// When publishers send.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many messages a second of all publishers together, whatever the broker does.
    Open { rate_per_sec: f64, arrivals: Arrivals },
    /// As many as the window allows.
    Closed,
}

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connecting {
    /// So many at a time.
    AtOnce(u32),
    /// So many a second, whatever the broker does.
    Rate(f64),
}

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Publish(u32),
    Subscribe(u32),
    Hold(u32),
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::Connect => "connect",
            Self::Latency => "latency",
        }
    }
}

impl Layout {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::FanIn => "fan-in",
            Self::FanOut => "fan-out",
        }
    }
}

impl Work {
    /// Its number among all clients that do the same.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Publish(number) | Self::Subscribe(number) | Self::Hold(number) => number,
        }
    }
}

impl Load {
    pub(super) fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.holders
    }

    /// What a thread has to do. The two of a pair are on one thread.
    pub(super) fn work_of(&self, thread: u32) -> Vec<Work> {
        let share =
            |count: u32, work: fn(u32) -> Work| (thread..count).step_by(self.threads as usize).map(work);
        share(self.subscribers, Work::Subscribe)
            .chain(share(self.publishers, Work::Publish))
            .chain(share(self.holders, Work::Hold))
            .collect()
    }

    pub(super) fn client_id(&self, work: Work) -> String {
        let prefix = &self.id_prefix;
        match work {
            Work::Publish(number) => format!("{prefix}p{number}"),
            Work::Subscribe(number) => format!("{prefix}s{number}"),
            Work::Hold(number) => format!("{prefix}{number}"),
        }
    }

    /// Where a publisher publishes.
    pub(super) fn topic(&self, publisher: u32) -> String {
        match self.layout {
            Layout::Pairs | Layout::FanIn => self.topic.with(publisher),
            Layout::FanOut => self.topic.with(0),
        }
    }

    /// What a subscriber subscribes to.
    pub(super) fn filter(&self, subscriber: u32) -> String {
        match self.layout {
            Layout::Pairs => self.topic.with(subscriber),
            Layout::FanIn => self.topic.with("+"),
            Layout::FanOut => self.topic.with(0),
        }
    }

    /// The publishers whose messages a subscriber gets.
    pub(super) fn sources(&self, subscriber: u32) -> std::ops::Range<u32> {
        match self.layout {
            Layout::Pairs => subscriber..subscriber + 1,
            Layout::FanIn | Layout::FanOut => 0..self.publishers,
        }
    }

    /// How many subscribers of this run get a message.
    pub(super) fn fan_out(&self) -> u64 {
        match (self.mode, self.layout) {
            (Mode::Pub | Mode::Sub | Mode::Connect, _) => 0,
            (Mode::Latency, Layout::Pairs) => 1,
            (Mode::Latency, Layout::FanIn | Layout::FanOut) => self.subscribers.into(),
        }
    }

    /// The part of a publisher in all messages.
    pub(super) fn messages_max_of(&self, publisher: u32) -> u64 {
        let publishers = u64::from(self.publishers.max(1));
        if self.messages_max == u64::MAX {
            return u64::MAX;
        }
        self.messages_max / publishers + u64::from(u64::from(publisher) < self.messages_max % publishers)
    }

    /// Whether publishers wait for their subscribers.
    pub(super) fn waits_for_subscribers(&self) -> bool {
        self.mode == Mode::Latency && matches!(self.pace, Pace::Closed)
    }
}

/// A text in which `%i` stands for the number of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn with(&self, number: impl std::fmt::Display) -> String {
        self.0.replace("%i", &number.to_string())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether the number fills a level, so that a wildcard can stand for it.
    pub(super) fn has_level_of_number(&self) -> bool {
        let numbered = |level: &str| level.contains("%i");
        self.0.split('/').any(numbered) && self.0.split('/').all(|level| level == "%i" || !numbered(level))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::QoS;

    pub(in crate::cli::bench) fn load(layout: Layout, publishers: u32, subscribers: u32) -> Load {
        Load {
            mode: Mode::Latency,
            publishers,
            subscribers,
            holders: 0,
            layout,
            topic: Pattern::new("a/%i"),
            id_prefix: "x-".into(),
            content: Content::new(1, 32, 1),
            manner: Manner { qos: QoS::AtMostOnce, retain: false },
            pace: Pace::Closed,
            messages_max: 10,
            window_messages_max: 10,
            warmup_ns: 0,
            duration_ns: u64::MAX,
            connecting: Connecting::AtOnce(1),
            seed: 1,
            threads: 2,
        }
    }

    #[test]
    fn every_client_is_on_one_thread_and_pairs_are_on_the_same() {
        let load = load(Layout::Pairs, 3, 3);
        let first = load.work_of(0);
        assert_eq!(first, [Work::Subscribe(0), Work::Subscribe(2), Work::Publish(0), Work::Publish(2)]);
        assert_eq!(load.work_of(1), [Work::Subscribe(1), Work::Publish(1)]);
    }

    #[test]
    fn layouts_tell_who_gets_what() {
        let pairs = load(Layout::Pairs, 3, 3);
        assert_eq!((pairs.topic(2), pairs.filter(2), pairs.sources(2)), ("a/2".into(), "a/2".into(), 2..3));
        let fan_in = load(Layout::FanIn, 3, 1);
        assert_eq!(
            (fan_in.topic(2), fan_in.filter(0), fan_in.sources(0)),
            ("a/2".into(), "a/+".into(), 0..3)
        );
        let fan_out = load(Layout::FanOut, 2, 5);
        assert_eq!(
            (fan_out.topic(1), fan_out.filter(4), fan_out.sources(4)),
            ("a/0".into(), "a/0".into(), 0..2)
        );
        assert_eq!([pairs, fan_in, fan_out].map(|load| load.fan_out()), [1, 1, 5]);
    }

    #[test]
    fn messages_are_shared_out_to_the_last() {
        let load = load(Layout::FanIn, 3, 1);
        assert_eq!([0, 1, 2].map(|publisher| load.messages_max_of(publisher)), [4, 3, 3]);
    }

    #[test]
    fn a_wildcard_stands_only_for_a_whole_level() {
        for (text, has) in [("a/%i", true), ("%i/b/%i", true), ("a/x%i", false), ("a", false)] {
            assert_eq!(Pattern::new(text).has_level_of_number(), has, "{text}");
        }
    }
}
