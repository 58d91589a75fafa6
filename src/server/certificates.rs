//! Files of the listeners' TLS: read again when they change, and watched for their end.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::net::{Clock, Reload, TlsError, Validity, ValidityKind};

use super::{cell::ShardCell, listen::Door};

/// Time between looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Time between reminders.
const REMIND_INTERVAL: Duration = Duration::from_secs(86_400);

/// Days before the end of a certificate from which on one is reminded of it.
const REMIND_DAYS: i64 = 30;

/// Looks at the files until the broker stops.
pub(crate) async fn watch(cell: Rc<ShardCell>, doors: Vec<Arc<Door>>) {
    let doors: Vec<Arc<Door>> = doors.into_iter().filter(|door| door.transport.tls().is_some()).collect();
    if doors.is_empty() {
        return;
    }
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reminder = Duration::ZERO;
    while !cell.is_stopping.get() {
        interval.tick().await;
        let clock = *cell.clock();
        let is_due = clock.uptime() >= reminder;
        if is_due {
            reminder = clock.uptime() + REMIND_INTERVAL;
        }
        let doors = doors.clone();
        // Files may be on a network, and long lists take a while to be read.
        let look = tokio::task::spawn_blocking(move || {
            for door in &doors {
                look(door);
                if is_due {
                    remind(door, &clock);
                }
            }
        });
        if look.await.is_err() {
            warn!(target: "dunlin::listener", "certificates are not looked at any more: their reader has panicked");
            return;
        }
    }
}

/// Reads a listener's files if they have changed.
fn look(door: &Door) {
    match door.transport.tls().map_or(Reload::Unchanged, |tls| tls.reload_if_changed()) {
        Reload::Unchanged => {}
        Reload::Reloaded => tell_reloaded(door),
        Reload::Refused(error) => tell_refused(door, &error),
    }
}

/// Reads a listener's files whether they have changed or not.
pub(crate) fn reload(door: &Door) -> Result<(), TlsError> {
    let Some(tls) = door.transport.tls() else { return Ok(()) };
    match tls.reload() {
        Ok(()) => tell_reloaded(door),
        Err(error) => {
            tell_refused(door, &error);
            return Err(error);
        }
    }
    Ok(())
}

fn tell_reloaded(door: &Door) {
    info!(target: "dunlin::listener", listener = door.name, "certificates reloaded, new connections get them");
}

fn tell_refused(door: &Door, error: &TlsError) {
    warn!(target: "dunlin::listener", listener = door.name, "certificates not reloaded, the old ones stay: {error}");
}

/// Says what ends soon, or has ended.
fn remind(door: &Door, clock: &Clock) {
    let now_secs = i64::try_from(clock.now().as_millis() / 1000).unwrap_or(i64::MAX);
    for validity in door.transport.tls().map(|tls| tls.validities()).unwrap_or_default() {
        let Validity { kind, file, subject, .. } = &validity;
        let (days, what) = (validity.days_left(now_secs), kind.as_str());
        let (listener, file) = (&door.name, file.display());
        match (kind, days) {
            (_, ..0) => {
                warn!(target: "dunlin::listener", listener, %file, subject, "{what} has expired");
            }
            (ValidityKind::Server | ValidityKind::ClientAuthority, ..REMIND_DAYS) => {
                warn!(target: "dunlin::listener", listener, %file, subject, "{what} expires in {days} days");
            }
            // The next list comes shortly before.
            (ValidityKind::Server | ValidityKind::ClientAuthority | ValidityKind::RevocationList, _) => {}
        }
    }
}
