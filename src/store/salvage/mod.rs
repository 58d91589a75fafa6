//! What to do with a damaged database: see what is wrong, save what can be read, keep the rest for people.
//!
//! The damaged file is never written. Its pages are read without redb, which trusts its files; the rows that can
//! be read go into a new database, which takes the place of the damaged one; that one is kept in `quarantine`
//! beside a report. Nothing is lost that is not in the quarantine, whenever the process dies.

mod image;
mod page;
mod report;

use std::{
    convert::Infallible,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use redb::Database;
use tracing::{error, info};

pub use image::Damage;
pub(super) use report::compact_utc;
pub use report::{Findings, TableFindings};

use image::{Image, Trust};
pub(super) use page::items as page_items;
use page::{Root, Slot, TableEntry, Widths};

use super::{
    DataDirectory,
    directory::sync_directory,
    file_medium::create,
    shape::{KeyShape, Put, Shape, Sink, ValueShape, with_sink},
};
use crate::time::Timestamp;

/// What the tables of the database are, and which of their rows make sense.
pub trait Schema {
    /// All tables, by name.
    fn tables(&self) -> &'static [(&'static str, Shape)];

    /// Whether this is a row of the table, to the last byte. Keys and values are as redb keeps them: numbers
    /// are little-endian.
    fn is_valid(&self, table: &str, key: &[u8], value: &[u8]) -> bool;

    /// Whether the table is a log: its keys are numbers, and a new row has a higher one than all before. What the
    /// last commit has added to it can be told even when the note of that commit is damaged.
    fn is_log(&self, table: &str) -> bool;

    /// Completes a database of which rows may be missing, so that it can be opened.
    ///
    /// # Errors
    /// What redb says.
    fn mend(&self, database: &Database) -> Result<(), redb::Error>;
}

/// A damaged database that was replaced.
#[derive(Debug)]
pub struct Rescue {
    /// Where the damaged file is now.
    pub quarantined: PathBuf,
    /// Where the report is.
    pub report: PathBuf,
    /// What was found.
    pub findings: Findings,
}

/// Reads a whole database and says what is wrong with it. Changes nothing.
///
/// # Errors
/// The file cannot be opened. What is wrong inside is in the findings.
pub fn examine(path: &Path, schema: &dyn Schema) -> io::Result<Findings> {
    let mut image = Image::open(path)?;
    let mut findings = Findings::of(&image);
    findings.system = system(&mut image);
    let state = State::latest(&mut image, &mut findings.tree);
    for &(name, shape) in schema.tables() {
        let mut table = TableFindings::new(name);
        if let Some(entry) = state.entry(name, shape, &mut table) {
            let Ok(walked) = image.walk(entry, shape.into(), |key, value, trust| {
                table.count(trust, key.len() + value.len(), schema.is_valid(name, key, value));
                Ok::<(), Infallible>(())
            });
            table.damage = walked;
        }
        findings.tables.push(table);
    }
    findings.others = state.others(&mut image, schema);
    Ok(findings)
}

/// A number that a table of names and numbers has, read without opening the database.
///
/// # Errors
/// The file cannot be read.
pub fn number_of(path: &Path, table: &str, key: &str) -> io::Result<Option<u64>> {
    let shape = Shape { key: KeyShape::Text, value: ValueShape::Number };
    let mut image = Image::open(path)?;
    let mut found = None;
    if let Some(root) = State::latest(&mut image, &mut Damage::default()).root(table, shape) {
        let Ok(_) = image.walk(root, shape.into(), |name, value, _| {
            if name == key.as_bytes() {
                found = number(value);
            }
            Ok::<(), Infallible>(())
        });
    }
    Ok(found)
}

/// Checks the checksum of every page of a database, before redb opens it and trusts them. Changes nothing.
/// `progress` is told after each page what percentage of the file is read.
///
/// # Errors
/// What is wrong, in words, or that the file cannot be read.
pub fn check_pages(path: &Path, progress: impl FnMut(u64) + 'static) -> io::Result<Result<(), String>> {
    let mut image = Image::open(path)?;
    image.tell(progress);
    if !image.header.is_whole {
        return Ok(Err("the start of the file is damaged".into()));
    }
    let [latest, earlier] = image.header.slots;
    let wrong = check_state(&mut image, latest);
    // A crash in the middle of a commit leaves it in pieces, and redb goes back to the state before it.
    if let Some(what) = &wrong
        && image.header.may_be_torn
        && check_state(&mut image, earlier).is_none()
    {
        info!("the stop cut the last commit short ({what}): the state before it counts");
        return Ok(Ok(()));
    }
    Ok(wrong.map_or(Ok(()), Err))
}

/// What is wrong with a state of a database; `None` if nothing is.
fn check_state(image: &mut Image, slot: Slot) -> Option<String> {
    if !slot.is_whole {
        return Some("the note of the last commit is damaged".into());
    }
    let roots = [slot.tables, slot.system];
    let mut damage = Damage::default();
    for root in roots.into_iter().flatten() {
        damage.add(check_trees(image, root));
    }
    damage.is_any().then(|| damage.to_string())
}

/// Checks a tree of tables and the trees in it.
fn check_trees(image: &mut Image, root: Root) -> Damage {
    let mut tables = Vec::new();
    let Ok(mut damage) = image.walk(root, Widths::OF_TABLES, |_, value, _| {
        tables.extend(TableEntry::read(value));
        Ok::<(), Infallible>(())
    });
    for table in tables.iter().filter(|table| table.is_plain) {
        if let Some(root) = table.root {
            let Ok(below) = image.walk(root, table.widths, |_, _, _| Ok::<(), Infallible>(()));
            damage.add(below);
        }
    }
    damage
}

/// Replaces a damaged database by one with all that can be read of it. `why` says what has shown the damage.
///
/// # Errors
/// What the system or redb says about the new database; the damaged one is then where it was.
pub fn rescue(
    directory: &DataDirectory,
    why: &str,
    now: Timestamp,
    schema: &dyn Schema,
) -> Result<Rescue, redb::Error> {
    let damaged = directory.database();
    let quarantine = directory.quarantine();
    match DirBuilder::new().mode(0o700).create(&quarantine) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => directory.sync()?,
    }
    let salvaged = directory.salvaged();
    let findings = create(&salvaged, |database| {
        let findings = salvage(&damaged, database, schema)?;
        schema.mend(database)?;
        Ok(findings)
    })?;

    let (quarantined, report) = names(&quarantine, now);
    let text = findings.report(why, &quarantined, now);
    File::create_new(&report).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })?;
    // By a second name first, so that there is a database in the directory at every moment.
    match fs::hard_link(&damaged, &quarantined) {
        Ok(()) => {}
        // A file system without hard links.
        Err(_) => fs::rename(&damaged, &quarantined)?,
    }
    sync_directory(&quarantine)?;
    fs::rename(&salvaged, &damaged)?;
    directory.sync()?;
    error!(
        quarantined = %quarantined.display(), report = %report.display(), rows_lost = findings.rows_lost(),
        "the store was damaged and has been replaced by what could be read of it: {why}"
    );
    Ok(Rescue { quarantined, report, findings })
}

/// Names in the quarantine that are free: `dunlin-20261121T154800Z.redb`, and `.txt`.
fn names(quarantine: &Path, now: Timestamp) -> (PathBuf, PathBuf) {
    let stem = format!("dunlin-{}", report::compact_utc(now));
    let mut number = 1;
    loop {
        let stem = if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
        let (database, report) =
            (quarantine.join(format!("{stem}.redb")), quarantine.join(format!("{stem}.report.txt")));
        if !database.exists() && !report.exists() {
            return (database, report);
        }
        number += 1;
    }
}

/// Copies all rows that can be read into a new database.
fn salvage(source: &Path, target: &Database, schema: &dyn Schema) -> Result<Findings, redb::Error> {
    let mut image = Image::open(source)?;
    let mut findings = Findings::of(&image);
    findings.system = system(&mut image);
    let latest = State::latest(&mut image, &mut findings.tree);
    let earlier = State::earlier(&mut image);
    let transaction = target.begin_write()?;
    let mut open = Vec::new();
    for &(name, shape) in schema.tables() {
        let mut table = TableFindings::new(name);
        with_sink(&transaction, name, shape, |sink| {
            let mut copy = Copy { schema, name, shape, sink, highest: None };
            if let Some(root) = latest.entry(name, shape, &mut table) {
                copy.tree(&mut image, root, &mut table)?;
            }
            if table.is_incomplete() || findings.tree.is_any() {
                // The state before the last commit has mostly the same rows, on other pages.
                if let Some(root) = earlier.as_ref().and_then(|state| state.root(name, shape)) {
                    copy.earlier(&mut image, root, &mut table)?;
                }
                open.push((findings.tables.len(), Wanted::All));
            } else if !findings.commit_is_whole && schema.is_log(name) {
                open.push((findings.tables.len(), Wanted::Above(copy.highest)));
            }
            Ok(())
        })?;
        findings.tables.push(table);
    }
    // Only now is it known which pages no tree has.
    for (index, wanted) in open {
        let (name, shape) = schema.tables()[index];
        let table = &mut findings.tables[index];
        with_sink(&transaction, name, shape, |sink| {
            Copy { schema, name, shape, sink, highest: None }.orphans(&image, wanted, table)
        })?;
    }
    transaction.commit()?;
    Ok(findings)
}

/// Goes through what redb keeps for itself. Damage there is no loss, but redb would trip over it.
fn system(image: &mut Image) -> Damage {
    image.header.slots[0].system.map_or_else(Damage::default, |root| check_trees(image, root))
}

/// The tables of a state of the database.
struct State {
    tables: Vec<(String, TableEntry)>,
    /// Whether these are all that there are.
    is_whole: bool,
}

impl State {
    /// The state after the last commit that is whole.
    fn latest(image: &mut Image, damage: &mut Damage) -> State {
        let [latest, earlier] = image.header.slots;
        let slot = if latest.is_whole || !earlier.is_whole { latest } else { earlier };
        State::of(image, slot, damage)
    }

    /// The state before that, if there is one.
    fn earlier(image: &mut Image) -> Option<State> {
        let [latest, earlier] = image.header.slots;
        (latest.is_whole && earlier.is_whole).then(|| State::of(image, earlier, &mut Damage::default()))
    }

    fn of(image: &mut Image, slot: Slot, damage: &mut Damage) -> State {
        let mut tables = Vec::new();
        if let Some(root) = slot.tables {
            let Ok(walked) = image.walk(root, Widths::OF_TABLES, |name, value, _| {
                if let (Ok(name), Some(entry)) = (str::from_utf8(name), TableEntry::read(value)) {
                    tables.push((name.to_owned(), entry));
                }
                Ok::<(), Infallible>(())
            });
            damage.add(walked);
        }
        State { tables, is_whole: slot.is_whole && !damage.is_any() }
    }

    /// The tree of a table; notes in `table` how many rows it should have.
    fn entry(&self, name: &str, shape: Shape, table: &mut TableFindings) -> Option<Root> {
        let entry = self.tables.iter().find(|(other, _)| other == name).map(|(_, entry)| entry);
        table.rows_expected = entry.map(|entry| entry.rows).or(self.is_whole.then_some(0));
        self.root(name, shape)
    }

    /// Goes through tables that the schema does not have.
    fn others(&self, image: &mut Image, schema: &dyn Schema) -> Damage {
        let is_known = |name: &str| schema.tables().iter().any(|(known, _)| *known == name);
        let others = self.tables.iter().filter(|(name, entry)| entry.is_plain && !is_known(name));
        let mut damage = Damage::default();
        for (_, entry) in others {
            if let Some(root) = entry.root {
                let Ok(walked) = image.walk(root, entry.widths, |_, _, _| Ok::<(), Infallible>(()));
                damage.add(walked);
            }
        }
        damage
    }

    fn root(&self, name: &str, shape: Shape) -> Option<Root> {
        let (_, entry) = self.tables.iter().find(|(other, _)| other == name)?;
        entry.root.filter(|_| entry.widths == shape.into())
    }
}

/// Which rows are looked for outside of all trees.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// All that are missing.
    All,
    /// Those with a higher key.
    Above(Option<u64>),
}

impl Wanted {
    fn has(self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Above(highest) => number(key) > highest,
        }
    }
}

/// A key that is a number.
fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_le_bytes)
}

/// Rows on their way into one table.
struct Copy<'a> {
    schema: &'a dyn Schema,
    name: &'a str,
    shape: Shape,
    sink: &'a mut dyn Sink,
    /// The highest key so far, if keys are numbers.
    highest: Option<u64>,
}

impl Copy<'_> {
    /// Rows of the tree of the table.
    fn tree(&mut self, image: &mut Image, root: Root, table: &mut TableFindings) -> Result<(), redb::Error> {
        let widths = self.shape.into();
        let walked = image.walk(root, widths, |key, value, trust| {
            let is_valid = self.schema.is_valid(self.name, key, value);
            let put = if is_valid { self.sink.put(key, value)? } else { Put::Refused };
            if put == Put::Written {
                self.highest = self.highest.max(number(key));
            }
            match put {
                Put::Written => table.count(trust, key.len() + value.len(), true),
                Put::Refused => table.count(trust, 0, false),
                Put::Present => table.rows_twice += 1,
            }
            Ok::<(), redb::StorageError>(())
        });
        table.damage = walked?;
        Ok(())
    }

    /// Rows of an earlier state that are missing.
    fn earlier(
        &mut self,
        image: &mut Image,
        root: Root,
        table: &mut TableFindings,
    ) -> Result<(), redb::Error> {
        image.walk(root, self.shape.into(), |key, value, trust| {
            if trust == Trust::Whole && self.schema.is_valid(self.name, key, value) {
                table.rows_of_earlier += u64::from(self.sink.put(key, value)? == Put::Written);
            }
            Ok::<(), redb::StorageError>(())
        })?;
        Ok(())
    }

    /// Rows on pages that no tree has.
    fn orphans(
        &mut self,
        image: &Image,
        wanted: Wanted,
        table: &mut TableFindings,
    ) -> Result<(), redb::Error> {
        image.scan(self.shape.into(), |key, value| {
            if wanted.has(key) && self.schema.is_valid(self.name, key, value) {
                table.rows_of_orphans += u64::from(self.sink.put(key, value)? == Put::Written);
            }
            Ok::<(), redb::StorageError>(())
        })?;
        Ok(())
    }
}
