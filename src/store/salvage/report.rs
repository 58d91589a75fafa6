//! What was found in a database, in numbers and in words.

use std::{
    fmt::{self, Write},
    path::Path,
};

use time::OffsetDateTime;

use super::image::{Damage, Image, Trust};
use crate::time::Timestamp;

/// What was found in a database.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Whether the start of the file makes sense.
    pub header_is_whole: bool,
    /// Whether the state after the last commit is noted as it should be.
    pub commit_is_whole: bool,
    /// The tree of tables.
    pub tree: Damage,
    /// What redb keeps for itself.
    pub system: Damage,
    /// Tables that are not known; an examination has them.
    pub others: Damage,
    /// The tables.
    pub tables: Vec<TableFindings>,
}

/// What was found in a table.
#[derive(Clone, Debug, Default)]
pub struct TableFindings {
    /// Its name.
    pub name: &'static str,
    /// Rows that it should have; `None` if nothing says.
    pub rows_expected: Option<u64>,
    /// Rows that were read and make sense.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Those of them that were on a page whose checksum is wrong: they may be altered.
    pub rows_doubtful: u64,
    /// Rows that make no sense.
    pub rows_refused: u64,
    /// Rows whose key had come before.
    pub rows_twice: u64,
    /// Rows that are missing, but were in the state before the last commit.
    pub rows_of_earlier: u64,
    /// Rows that are missing, but were found somewhere in the file.
    pub rows_of_orphans: u64,
    /// Its pages.
    pub damage: Damage,
}

impl Findings {
    pub(super) fn of(image: &Image) -> Findings {
        let [latest, other] = image.header.slots;
        Findings {
            file_bytes: image.len(),
            header_is_whole: image.header.is_whole,
            // Without a header the other may have been the later one.
            commit_is_whole: latest.is_whole && (image.header.is_whole || other.is_whole),
            ..Findings::default()
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems().is_empty()
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.header_is_whole {
            problems.push("the start of the file is damaged".into());
        }
        if !self.commit_is_whole {
            problems.push("the note of the last commit is damaged: the state before it counts".into());
        }
        for (what, damage) in [
            ("the list of tables", &self.tree),
            ("the list of free pages", &self.system),
            ("tables of another release", &self.others),
        ] {
            if damage.is_any() {
                problems.push(format!("{what}: {damage}"));
            }
        }
        problems.extend(self.tables.iter().filter_map(|table| {
            let problem = table.problem()?;
            Some(format!("table {}: {problem}", table.name))
        }));
        problems
    }

    /// Rows that are missing, as far as anybody knows.
    #[must_use]
    pub fn rows_lost(&self) -> u64 {
        self.tables.iter().map(TableFindings::rows_lost).sum()
    }

    /// The report that is put beside a damaged database.
    pub(super) fn report(&self, why: &str, quarantined: &Path, now: Timestamp) -> String {
        let mut text = format!(
            "The database of this broker was damaged. It has been replaced by a new one with all that could be read.\n\n\
             When:          {}\nWhat was seen: {why}\nDamaged file:  {} ({} bytes)\n\nWhat was found:\n",
            utc(now),
            quarantined.display(),
            self.file_bytes
        );
        for problem in self.problems() {
            let _ = writeln!(text, "- {problem}");
        }
        let _ = writeln!(
            text,
            "\n{:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "table", "expected", "read", "doubtful", "refused", "earlier", "orphans", "missing"
        );
        for table in &self.tables {
            let _ = writeln!(
                text,
                "{:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
                table.name,
                table.rows_expected.map_or_else(|| "?".into(), |rows| rows.to_string()),
                table.rows,
                table.rows_doubtful,
                table.rows_refused,
                table.rows_of_earlier,
                table.rows_of_orphans,
                if table.rows_expected.is_some() { table.rows_lost().to_string() } else { "?".into() },
            );
        }
        text.push_str(EXPLANATION);
        text
    }
}

const EXPLANATION: &str = "
expected  rows that the table says it had; ? if that could not be read
read      rows of it that were read, make sense and are in the new database
doubtful  those of them that were on a page whose checksum is wrong: a byte of them may be another than it was
refused   rows that make no sense; they are not in the new database
earlier   rows that were missing and were taken from the state before the last commit: what that commit has
          removed or changed may be among them
orphans   rows that were missing and were found elsewhere in the file: they may have been removed or changed
          long before, which cannot be told
missing   rows that are in no way known

A message that was doubtful, earlier or an orphan may be delivered although it had been delivered before.
The damaged file is kept for whoever wants to look further; the broker does not need it, and it may be deleted.
The usual causes are a failing disk or memory, and another program that has written to the file.
";

impl TableFindings {
    pub(super) fn new(name: &'static str) -> TableFindings {
        TableFindings { name, ..TableFindings::default() }
    }

    pub(super) fn count(&mut self, trust: Trust, bytes: usize, is_valid: bool) {
        if is_valid {
            self.rows += 1;
            self.bytes += bytes as u64;
            self.rows_doubtful += u64::from(trust == Trust::Doubtful);
        } else {
            self.rows_refused += 1;
        }
    }

    /// Whether rows are missing, or nobody knows how many there should be.
    pub(super) fn is_incomplete(&self) -> bool {
        let found = self.rows + self.rows_of_earlier + self.rows_of_orphans;
        // Where all rows are there, a page with a wrong letter is no reason to search.
        let leads_astray = self.damage.branches_damaged + self.damage.pages_unreadable > 0;
        leads_astray || self.rows_expected.is_none_or(|rows| found < rows)
    }

    fn rows_lost(&self) -> u64 {
        let found = self.rows + self.rows_of_earlier + self.rows_of_orphans;
        self.rows_expected.unwrap_or(0).saturating_sub(found)
    }

    fn problem(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.damage.is_any() {
            parts.push(self.damage.to_string());
        }
        if self.rows_refused > 0 {
            parts.push(format!("{} rows make no sense", self.rows_refused));
        }
        let read = self.rows + self.rows_refused;
        match self.rows_expected {
            Some(expected) if expected != read => parts.push(format!("{read} rows instead of {expected}")),
            _ => {}
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.pages_damaged, "pages with a wrong checksum"),
            (self.pages_unreadable, "pages that cannot be read"),
            (self.rows_unreadable, "rows that cannot be read"),
        ];
        let found = parts.iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = found.map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// `2026-11-21T15:48:00Z`
fn utc(now: Timestamp) -> String {
    let at = date(now);
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

/// `20261121T154800Z`, which every file system takes for a name.
pub(in crate::store) fn compact_utc(now: Timestamp) -> String {
    utc(now).replace(['-', ':'], "")
}

fn date(now: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp((now.as_millis() / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = Timestamp::from_millis(1_795_276_080_999);
        assert_eq!(
            (utc(at).as_str(), compact_utc(at).as_str()),
            ("2026-11-21T15:48:00Z", "20261121T154800Z")
        );
        assert_eq!(utc(Timestamp::from_millis(u64::MAX)), "1970-01-01T00:00:00Z");
    }
}
