//! Accepted = delivered + queued + dropped with a reason, of which expiry is one; and the counters of queues say
//! what is in the queues.

use dunlin::broker::{Counters, DropReason, Shard};

use super::{Broker, Check, Facts, leaks};

pub(super) struct Accounts;

impl Check for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn look(&mut self, broker: &Broker, _: &Facts) -> Result<(), String> {
        let sum = |counter: fn(&Counters) -> u64| broker.shared.sum(counter);
        let sessions = || broker.shards().flat_map(Shard::sessions);
        let accepted = sum(|counters| counters.deliveries_accepted.value());
        let handed_over = sum(|counters| counters.deliveries_handed_over.value());
        let completed = sum(|counters| counters.deliveries_completed.value());
        let queued = sum(|counters| counters.queued_messages.value());
        let transient: u64 = sessions().map(|session| session.transient.len() as u64).sum();
        let mut dropped = 0;
        for reason in DropReason::ALL {
            let count = broker.shared.sum(|counters| counters.drops[reason as usize].value());
            let told = broker.shards().flat_map(|shard| shard.drops().iter());
            let told: u64 = told.filter(|line| line.reason == reason).map(|line| line.total).sum();
            if told != count {
                return Err(format!("{count} drops for {}, and {told} in the account", reason.name()));
            }
            dropped += if reason.ends_delivery() { count } else { 0 };
        }
        let found = handed_over + completed + queued + transient + dropped;
        // What is dropped on its way to another shard, or behind a commit, is counted there.
        if accepted != found && (broker.is_quiet() || accepted < found) {
            return Err(format!(
                "{accepted} accepted, but {handed_over} handed over + {completed} completed + {queued} and \
                 {transient} queued + {dropped} dropped"
            ));
        }
        if broker.is_quiet() {
            leaks::timers(broker)?;
        }
        let in_queues: usize = sessions().map(|session| session.handle.queued_messages()).sum();
        // What is on its way to its shard, or waits for the store, is in the account already.
        if broker.is_quiet() && queued != in_queues as u64 {
            return Err(format!("{queued} messages are said to be queued, and {in_queues} are"));
        }
        Ok(())
    }
}
