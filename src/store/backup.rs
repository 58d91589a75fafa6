//! Copies of a whole database.

use std::{
    fmt,
    ops::Bound,
    path::{Path, PathBuf},
};

use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle,
    WriteTransaction,
};

use super::{
    file_medium::create,
    shape::{Shape, with_types},
    tables::SPILLED,
};

/// Rows between two calls of `progress`.
const PROGRESS_ROWS: u64 = 50_000;

/// Whether a copy may take the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// A file of that name is kept, and nothing is copied.
    Keep,
    /// It is replaced, once the copy is whole.
    Replace,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that are copied.
    pub rows: u64,
    /// Rows that there are.
    pub rows_total: u64,
}

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// Rows in it.
    pub rows: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// Why no copy was made.
#[derive(Debug)]
pub enum BackupError {
    /// There is a file of that name.
    Exists(PathBuf),
    /// It would be in the data directory, among the files that a broker uses.
    InDataDirectory(PathBuf),
    /// A table is of a type that this release does not know.
    UnknownTable(String),
    /// What redb or the system says.
    Database(redb::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(f, "{} exists; --force replaces it", path.display()),
            Self::InDataDirectory(path) => {
                write!(f, "{} is in the data directory itself; name a place elsewhere", path.display())
            }
            Self::UnknownTable(name) => {
                write!(f, "table {name} is of a type that this release of dunlin does not know")
            }
            Self::Database(redb::Error::Io(error)) => error.fmt(f),
            Self::Database(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl<E: Into<redb::Error>> From<E> for BackupError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Copies a database to a new file: its state at this moment, while others go on to change it. The file has its
/// name only once it is whole and on the disk.
///
/// The pages of that moment are kept for as long as it takes, so the database grows meanwhile.
///
/// # Errors
/// Why there is no copy.
pub fn backup(
    database: &impl ReadableDatabase,
    to: &Path,
    existing: Existing,
    mut progress: impl FnMut(Progress),
) -> Result<BackedUp, BackupError> {
    if existing == Existing::Keep && to.try_exists()? {
        return Err(BackupError::Exists(to.into()));
    }
    let from = database.begin_read()?;
    let mut tables = tables(&from)?;
    // A restart would remove it: the log says the same.
    tables.retain(|table| table.name != SPILLED.name());
    let mut state = Progress { rows: 0, rows_total: tables.iter().map(|table| table.rows).sum() };
    progress(state);
    create(to, |copy| {
        let into = copy.begin_write()?;
        for table in &tables {
            copy_table(&from, &into, table, &mut |rows| {
                state.rows += rows;
                progress(state);
            })?;
        }
        Ok(into.commit()?)
    })?;
    Ok(BackedUp { rows: state.rows, bytes: to.metadata()?.len() })
}

/// A table of a database.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its types.
    pub shape: Shape,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

/// The tables of a database, by name.
///
/// # Errors
/// What redb says, or that a table is none of ours.
pub fn tables(transaction: &ReadTransaction) -> Result<Vec<TableInfo>, BackupError> {
    let mut tables = Vec::new();
    for handle in transaction.list_tables()? {
        let name = handle.name().to_owned();
        let Some(shape) = Shape::of_table(transaction, &name)? else {
            return Err(BackupError::UnknownTable(name));
        };
        let table = transaction.open_untyped_table(handle)?;
        tables.push(TableInfo { name, shape, rows: table.len()?, bytes: table.stats()?.stored_bytes() });
    }
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(tables)
}

fn copy_table(
    from: &ReadTransaction,
    into: &WriteTransaction,
    table: &TableInfo,
    copied: &mut dyn FnMut(u64),
) -> Result<(), redb::Error> {
    with_types!(table.shape, K, V => {
        let definition = TableDefinition::<'_, K, V>::new(&table.name);
        let source = from.open_table(definition)?;
        let mut target = into.open_table(definition)?;
        // At the end, since rows come in order: each page is written once.
        let mut cursor = target.upper_bound_mut(Bound::<<K as redb::Value>::SelfType<'_>>::Unbounded)?;
        let mut rows = 0;
        for row in source.iter()? {
            let (key, value) = row?;
            cursor.insert_before(key.value(), value.value())?;
            rows += 1;
            if rows == PROGRESS_ROWS {
                copied(rows);
                rows = 0;
            }
        }
        cursor.close()?;
        copied(rows);
        Ok(())
    })
}
