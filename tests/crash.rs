//! The real program, killed and started again, or short of disk: what it acknowledged is there.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "tests have threads and clocks of their own")]

mod crash {
    mod broker;
    mod client;
    mod damaged;
    mod full;
    mod killed;
    mod restarted;
}
