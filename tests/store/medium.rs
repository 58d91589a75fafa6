//! A disk in memory that loses its power, its room, or its mind.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use dunlin::store::Medium;
use redb::{Database, StorageBackend, backends::InMemoryBackend};

use super::rng::Rng;

const SECTOR_BYTES: usize = 512;

/// What goes wrong, at the operation with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    PowerLoss,
    /// Writes fail for want of room until the reserve is given up.
    NoRoom,
    /// One write or sync fails, and nobody knows what it did.
    Io,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// What reads see.
    live: Vec<u8>,
    /// What a power loss leaves for sure.
    durable: Vec<u8>,
    /// What it may leave.
    unsynced: Vec<Change>,
    exists: bool,
    operations: u64,
    fault_at: Option<(u64, Fault)>,
    is_dead: bool,
    is_broken: bool,
    pub(crate) has_no_room: bool,
    pub(crate) reserve_spent: bool,
    /// There is no room even with the reserve.
    pub(crate) reserve_is_short: bool,
    pub(crate) is_nearly_full: bool,
    pub(crate) syncs_lie: bool,
    /// Each power cycle ends the handles of the one before.
    cycle: u64,
    /// Operations after an error that must not be survived.
    pub(crate) touched_after_failure: u64,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn arm(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        state.fault_at = Some((state.operations + after, fault));
    }

    pub(crate) fn disarm(&self) {
        self.state().fault_at = None;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Nothing reaches it any more until it is revived.
    pub(crate) fn kill(&self) {
        self.state().is_dead = true;
    }

    /// The process that used it is gone, and the system has all that it wrote.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        state.is_dead = false;
        state.is_broken = false;
        state.fault_at = None;
        state.touched_after_failure = 0;
        state.cycle += 1;
    }

    /// The power comes back: of what was not synced, anything may be there.
    pub(crate) fn restart(&self, rng: &mut Rng) {
        let mut state = self.state();
        let luck = rng.below(4);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Length(length) if luck == 3 || rng.one_in(2) => {
                    let length = length.max(state.durable.len());
                    state.durable.resize(length, 0);
                }
                Change::Length(_) => {}
                Change::Write(offset, bytes) => {
                    for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        let is_kept = match luck {
                            0 => false,
                            3 => true,
                            _ => rng.one_in(2),
                        };
                        if is_kept {
                            let from = offset + at * SECTOR_BYTES;
                            let length = state.durable.len().max(from + sector.len());
                            state.durable.resize(length, 0);
                            state.durable[from..from + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        state.live = state.durable.clone();
        state.is_dead = false;
        state.is_broken = false;
        state.fault_at = None;
        state.cycle += 1;
    }
}

impl State {
    /// Counts an operation; an error if it fails. Whether it writes decides about room.
    fn operate(&mut self, cycle: u64, writes: bool) -> io::Result<()> {
        if self.is_broken {
            self.touched_after_failure += 1;
        }
        if self.is_dead || self.cycle != cycle {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        if let Some((at, fault)) = self.fault_at
            && self.operations >= at
        {
            match fault {
                Fault::PowerLoss => {
                    self.is_dead = true;
                    return Err(io::Error::other("the power is off"));
                }
                Fault::NoRoom => self.has_no_room = true,
                Fault::Io if writes => {
                    self.is_broken = true;
                    self.fault_at = None;
                    return Err(io::Error::from_raw_os_error(5));
                }
                Fault::Io => {}
            }
        }
        if writes && self.has_no_room && (!self.reserve_spent || self.reserve_is_short) {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Backend {
    disk: Disk,
    cycle: u64,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.operate(self.cycle, false)?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.cycle, false)?;
        let from = offset as usize;
        let bytes = state.live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.cycle, true)?;
        state.live.resize(len as usize, 0);
        state.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.cycle, true)?;
        if state.syncs_lie {
            return Ok(());
        }
        let State { durable, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Change::Length(length) => durable.resize(length, 0),
                Change::Write(offset, bytes) => {
                    let length = durable.len().max(offset + bytes.len());
                    durable.resize(length, 0);
                    durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operate(self.cycle, true);
        // The write that the power loss meets may be half done.
        if outcome.is_ok() || state.is_dead {
            state.unsynced.push(Change::Write(offset as usize, data.to_vec()));
        }
        outcome?;
        let from = offset as usize;
        let length = state.live.len().max(from + data.len());
        state.live.resize(length, 0);
        state.live[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Scratch(Arc<InMemoryBackend>);

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// A new database. All are alike, so one is made.
fn empty() -> Result<Vec<u8>, redb::DatabaseError> {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(bytes) = EMPTY.get() {
        return Ok(bytes.clone());
    }
    let scratch = Scratch::default();
    drop(Database::builder().create_with_backend(scratch.clone())?);
    let mut bytes = vec![0; scratch.len()? as usize];
    scratch.read(0, &mut bytes)?;
    Ok(EMPTY.get_or_init(|| bytes).clone())
}

impl Medium for Disk {
    /// A new database is made elsewhere and appears whole, as a file that is renamed.
    fn open(&self, cache_bytes: usize) -> Result<Database, redb::DatabaseError> {
        if !self.state().exists {
            let bytes = empty()?;
            let mut state = self.state();
            let cycle = state.cycle;
            state.operate(cycle, true)?;
            state.exists = true;
            state.live.clone_from(&bytes);
            state.durable = bytes;
        }
        let cycle = self.state().cycle;
        Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(Backend { disk: self.clone(), cycle })
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        !state.has_no_room && !state.reserve_spent && !state.is_nearly_full
    }

    fn release_reserve(&self) -> io::Result<()> {
        self.state().reserve_spent = true;
        Ok(())
    }

    fn make_reserve(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.has_no_room {
            return Err(io::Error::from_raw_os_error(28));
        }
        state.reserve_spent = false;
        Ok(())
    }
}
