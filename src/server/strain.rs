//! Looks at the memory of the process now and then, and tells the core how much of the budget is used.

use std::{fs, rc::Rc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::broker::Strain;

use super::cell::ShardCell;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks until the broker stops.
pub(super) async fn watch(cell: Rc<ShardCell>) {
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let page_bytes = rustix::param::page_size();
    while !cell.is_stopping.get() {
        interval.tick().await;
        let budget = cell.common.running.memory_bytes_max();
        let used = if budget == 0 { Some(0) } else { resident_pages().map(|pages| pages * page_bytes) };
        // A system that does not tell cannot run out by our account.
        let Some(used) = used else { return };
        let strain = Strain::of(used, budget);
        let before = cell.common.shared.strain.set(strain);
        if strain == before {
            continue;
        }
        match strain {
            Strain::None => info!(target: "dunlin::memory", used, budget, "there is memory again"),
            Strain::Connections => warn!(
                target: "dunlin::memory", used, budget, "nine tenths of the memory are used: new connections are refused"
            ),
            Strain::Transient => warn!(
                target: "dunlin::memory", used, budget, "memory runs out: QoS 0 for slow clients is dropped"
            ),
            Strain::Messages => {
                warn!(target: "dunlin::memory", used, budget, "no memory is left: QoS 1 and 2 are refused");
            }
        }
    }
}

/// Pages of the process that are in memory and its own: the second number less the third, which are of files.
fn resident_pages() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut numbers = text.split_ascii_whitespace().skip(1).map(str::parse::<usize>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}
