//! Panics inside redb.
//!
//! redb trusts the file that it opens: one that was altered behind its back can make it panic. While such a file
//! is opened, checked or read, the panic is caught and becomes an answer. Everywhere else a panic means that a
//! promise may have been broken, and the program ends: see [`is_guarded`].

use std::{
    any::Any,
    cell::Cell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A panic that was caught: what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database library gave up: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// Whether a panic of this thread is going to be caught by [`guarded`]. The panic hook of the program asks.
#[must_use]
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// Runs `work` and catches a panic of it. What `work` has touched must not be used after a panic.
///
/// # Errors
/// The panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    /// Counts down also while a panic passes.
    struct Entered;
    impl Drop for Entered {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let entered = Entered;
    let result = catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(&*payload)));
    drop(entered);
    result
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_answer_and_leaves_no_guard_behind() {
        assert!(!is_guarded());
        let inner = || {
            let caught = guarded(|| -> u8 { panic!("at {}", 7) });
            assert!(is_guarded(), "the outer guard still stands");
            caught
        };
        assert_eq!(guarded(inner), Ok(Err(Panicked("at 7".into()))));
        assert!(!is_guarded());
        assert_eq!(guarded(|| 5), Ok(5));
    }
}
