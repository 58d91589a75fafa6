//! Nothing is left of what is gone: once all sessions have ended, there are no sessions, subscriptions, timers,
//! queues or rows any more.

use dunlin::store::{Medium, tables};
use redb::ReadableDatabase;

use super::{
    super::{features::Feature, medium::Disk},
    Broker, Facts, Features,
};

/// The broker after all sessions have ended.
pub(crate) fn of_broker(broker: &Broker, _: &Facts) -> Result<(), String> {
    let left = |what: &str, count: usize| match count {
        0 => Ok(()),
        count => Err(format!("{count} {what} are left")),
    };
    left("sessions", broker.shards().map(|shard| shard.sessions().count()).sum())?;
    left("links", broker.shards().map(|shard| shard.links()).sum())?;
    left("subscriptions", broker.shared.router.subscriptions())?;
    left("queued messages", broker.shared.queued_messages())?;
    left("queued bytes", broker.shared.queued_bytes())?;
    left("forwards", broker.forwards())?;
    let drops = broker.shards().filter(|shard| shard.drops().is_timed()).count();
    // The sweep of retained messages always runs.
    left("timers", broker.shards().map(|shard| shard.timers()).sum::<usize>() - 1 - drops)
}

/// Every timer belongs to something that is there.
pub(super) fn timers(broker: &Broker) -> Result<(), String> {
    let shards = || broker.shards();
    let links: usize = shards().map(|shard| shard.keep_alive_timers()).sum();
    let sessions =
        shards().flat_map(|shard| shard.sessions()).filter(|session| session.timer.is_some()).count();
    let withheld: usize = shards().map(|shard| shard.withholding_links()).sum();
    let drops = shards().filter(|shard| shard.drops().is_timed()).count();
    let expected = links + sessions + withheld + drops + 1;
    let found: usize = shards().map(|shard| shard.timers()).sum();
    if found > expected {
        return Err(format!(
            "{found} timers, of {links} connections, {sessions} sessions, {withheld} withheld acknowledgements, \
             {drops} accounts of drops and the sweep"
        ));
    }
    Ok(())
}

/// The disk after the store has been closed: messages, sessions and what belongs to them leave no row.
///
/// A start on a full disk leaves the runs that it finds where they are: nobody reads them, and the next start
/// removes them.
pub(crate) fn of_disk(disk: &Disk, features: Features) -> Result<(), String> {
    let database = disk.open(1 << 20).map_err(|error| error.to_string())?;
    let transaction = database.begin_read().map_err(|error| error.to_string())?;
    let tables = tables(&transaction).map_err(|error| error.to_string())?;
    for table in tables {
        let may_have_rows = match table.name.as_str() {
            "meta" | "retained" => true,
            "sessq" => features.has(Feature::DiskFull),
            _ => false,
        };
        if table.rows > 0 && !may_have_rows {
            return Err(format!("{} rows of the table {} are left", table.rows, table.name));
        }
    }
    Ok(())
}
