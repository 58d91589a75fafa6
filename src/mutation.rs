//! Deliberate faults, to check the checks: each must be noticed by the simulator.
//!
//! They can be injected with the feature `mutations` alone, which nothing but `tests/sim` is built with. Without it
//! asking is a constant, and the compiler removes what depends on it.

/// Something that the broker does wrong while it is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Acknowledgements do not wait for their commit.
    AckBeforeCommit,
    /// A QoS 2 PUBLISH that comes again is taken for a new one.
    RepetitionAccepted,
    /// What PUBREL frees is not stored.
    ReleaseNotStored,
    /// A subscription is not stored.
    SubscriptionNotStored,
    /// A will is not published.
    WillLost,
    /// A will is published twice.
    WillTwice,
    /// DISCONNECT does not revoke the will.
    WillNotRevoked,
    /// One message more is sent than the client's Receive Maximum.
    WindowTooLarge,
    /// Packet identifiers repeat before they are free.
    IdentifierReused,
    /// Messages are queued in the wrong order.
    OrderSwapped,
    /// A connection is not closed when its client has a new one.
    TakeoverForgotten,
    /// A retained message is not replaced.
    RetainedStale,
    /// UNSUBSCRIBE leaves the subscription in the index.
    UnsubscribeForgotten,
    /// A client gets its own messages though it asked not to.
    NoLocalIgnored,
    /// Who may publish what is not asked.
    DeniedAccepted,
    /// Who may subscribe to what is not asked.
    DeniedGranted,
    /// That a session has ended is not stored.
    EndNotStored,
    /// Messages of a member that leaves a shared subscription are lost.
    SharedLost,
    /// Messages of a member that leaves a shared subscription go to another one though they were sent.
    SharedTwice,
    /// Queues take more than their limit.
    QueueUnbounded,
    /// All queues together take more than their limit.
    QueuesUnbounded,
    /// The oldest messages are not dropped to make room.
    OldestKept,
    /// What is dropped is not counted.
    DropUncounted,
    /// Messages do not expire.
    ExpiryIgnored,
    /// Sessions do not expire.
    SessionImmortal,
    /// A resumed session forgets what was sent and not acknowledged.
    InflightForgotten,
    /// Messages that nobody needs stay in the store.
    RecordLeft,
    /// The timer of a connection stays when it is closed.
    TimerLeft,
    /// That a shared message went to another member is not stored.
    PassedForgotten,
    /// A store that started without a reserve does not make one.
    ReserveForgotten,
    /// What a start makes of sessions waits for a client.
    StartNotStored,
    /// After a crash what may have been sent counts as never sent.
    CrashForgotten,
}

#[cfg(feature = "mutations")]
mod injected {
    use std::cell::Cell;

    use super::Mutation;

    impl Mutation {
        /// All of them.
        pub const ALL: [Mutation; 32] = [
            Mutation::AckBeforeCommit,
            Mutation::RepetitionAccepted,
            Mutation::ReleaseNotStored,
            Mutation::SubscriptionNotStored,
            Mutation::WillLost,
            Mutation::WillTwice,
            Mutation::WillNotRevoked,
            Mutation::WindowTooLarge,
            Mutation::IdentifierReused,
            Mutation::OrderSwapped,
            Mutation::TakeoverForgotten,
            Mutation::RetainedStale,
            Mutation::UnsubscribeForgotten,
            Mutation::NoLocalIgnored,
            Mutation::DeniedAccepted,
            Mutation::DeniedGranted,
            Mutation::EndNotStored,
            Mutation::SharedLost,
            Mutation::SharedTwice,
            Mutation::QueueUnbounded,
            Mutation::QueuesUnbounded,
            Mutation::OldestKept,
            Mutation::DropUncounted,
            Mutation::ExpiryIgnored,
            Mutation::SessionImmortal,
            Mutation::InflightForgotten,
            Mutation::RecordLeft,
            Mutation::TimerLeft,
            Mutation::PassedForgotten,
            Mutation::ReserveForgotten,
            Mutation::StartNotStored,
            Mutation::CrashForgotten,
        ];
    }

    thread_local! {
        static CURRENT: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// From now on the broker of this thread does this wrong.
    pub fn inject(mutation: Option<Mutation>) {
        CURRENT.set(mutation);
    }

    pub fn is_on(mutation: Mutation) -> bool {
        CURRENT.get() == Some(mutation)
    }
}

#[cfg(feature = "mutations")]
pub use injected::inject;
#[cfg(feature = "mutations")]
pub use injected::is_on;

/// Whether the broker is to do this wrong.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn is_on(_: Mutation) -> bool {
    false
}
