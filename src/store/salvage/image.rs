//! A database file as it lies on the disk, read page by page without redb.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt, path::Path};

use super::page::{HEADER_BYTES, Header, Leaf, PAGE_BYTES, Page, Pointer, Root, Widths};

/// Pages that the search for leaves reads at a time.
const SCAN_PAGES: u64 = 256;

/// A file that is read.
pub(super) struct Image {
    file: File,
    len: u64,
    pub(super) header: Header,
    /// First bytes of the undamaged pages that some tree has, with their ends.
    visited: BTreeSet<(u64, u64)>,
    /// Bytes that were read, and who wants to know of them.
    read_bytes: u64,
    progress: Box<dyn FnMut(u64)>,
}

/// How much a row is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The checksum of its page is right.
    Whole,
    /// It is not.
    Doubtful,
}

/// What was wrong with the pages of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Pages that were read.
    pub pages_read: u64,
    /// Pages whose checksum is wrong.
    pub pages_damaged: u64,
    /// Those of them that lead to others: what they lead to may be wrong.
    pub branches_damaged: u64,
    /// Pages of which nothing can be read, with all that is below them.
    pub pages_unreadable: u64,
    /// Rows whose bounds in their page make no sense.
    pub rows_unreadable: u64,
}

impl Damage {
    /// Whether something was wrong.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.pages_damaged + self.pages_unreadable + self.rows_unreadable > 0
    }

    pub(super) fn add(&mut self, other: Damage) {
        self.pages_read += other.pages_read;
        self.pages_damaged += other.pages_damaged;
        self.branches_damaged += other.branches_damaged;
        self.pages_unreadable += other.pages_unreadable;
        self.rows_unreadable += other.rows_unreadable;
    }
}

impl Image {
    pub(super) fn open(path: &Path) -> io::Result<Image> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut start = [0; HEADER_BYTES];
        let header = file.read_exact_at(&mut start, 0).ok().and_then(|()| Header::read(&start));
        Ok(Image {
            file,
            len,
            header: header.unwrap_or_else(Header::unknown),
            visited: BTreeSet::new(),
            read_bytes: 0,
            progress: Box::new(|_| {}),
        })
    }

    /// Has `progress` told the percentage of the file that was read, after each page.
    pub(super) fn tell(&mut self, progress: impl FnMut(u64) + 'static) {
        self.progress = Box::new(progress);
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of a page; `None` if it is outside of the file or the disk does not give it.
    fn page(&mut self, pointer: Pointer) -> Option<(u64, Vec<u8>)> {
        let (start, len) = pointer.place(&self.header)?;
        if start.checked_add(len)? > self.len {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, start).ok()?;
        self.read_bytes += len;
        (self.progress)((self.read_bytes * 100 / self.len).min(100));
        Some((start, bytes))
    }

    /// Goes through a tree and hands over its rows, in order where nothing is damaged.
    pub(super) fn walk<E>(
        &mut self,
        root: Root,
        widths: Widths,
        mut visit: impl FnMut(&[u8], &[u8], Trust) -> Result<(), E>,
    ) -> Result<Damage, E> {
        let mut damage = Damage::default();
        let mut seen = BTreeSet::new();
        let mut open = vec![root.0];
        while let Some(pointer) = open.pop() {
            let read = self.page(pointer);
            let Some((page, start, bytes)) =
                read.and_then(|(start, bytes)| Some((Page::read(&bytes, widths)?, start, bytes)))
            else {
                damage.pages_unreadable += 1;
                continue;
            };
            // A damaged pointer may lead back up: each page is read once.
            if !seen.insert(start) {
                damage.pages_unreadable += 1;
                continue;
            }
            damage.pages_read += 1;
            let trust = if page.is_whole(&bytes, pointer) { Trust::Whole } else { Trust::Doubtful };
            if trust == Trust::Whole {
                self.visited.insert((start, start + bytes.len() as u64));
            }
            damage.pages_damaged += u64::from(trust == Trust::Doubtful);
            match page {
                Page::Branch(branch) => {
                    damage.branches_damaged += u64::from(trust == Trust::Doubtful);
                    open.extend(branch.children.into_iter().rev());
                }
                Page::Leaf(leaf) => {
                    for row in leaf.rows {
                        match row.map(|row| row.of(&bytes)) {
                            Some((key, value)) => visit(key, value, trust)?,
                            None => damage.rows_unreadable += 1,
                        }
                    }
                }
            }
        }
        Ok(damage)
    }

    /// Looks for pages that could be leaves of a tree that cannot be reached any more, and hands their rows over.
    /// A file has pages of earlier states too: which of them a row is from, nobody can tell.
    pub(super) fn scan<E>(
        &self,
        widths: Widths,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = PAGE_BYTES;
        let mut bytes = Vec::new();
        while at < self.len {
            let chunk_end = (at + SCAN_PAGES * PAGE_BYTES).min(self.len);
            bytes.resize((chunk_end - at) as usize, 0);
            if self.file.read_exact_at(&mut bytes, at).is_ok() {
                for offset in (0..bytes.len()).step_by(PAGE_BYTES as usize) {
                    self.scan_page(at + offset as u64, &bytes[offset..], widths, &mut visit)?;
                }
            }
            at = chunk_end;
        }
        Ok(())
    }

    fn scan_page<E>(
        &self,
        start: u64,
        head: &[u8],
        widths: Widths,
        visit: &mut impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_visited(start) {
            return Ok(());
        }
        // A page that is longer than what is at hand is read again, as long as it says it is.
        let longer;
        let mut bytes = head;
        let Some(mut leaf) = Leaf::read(bytes, widths) else { return Ok(()) };
        if leaf.used.is_none() {
            let Some(end) = leaf.end.filter(|end| start + (*end as u64) <= self.len) else { return Ok(()) };
            let mut whole = vec![0; end];
            if self.file.read_exact_at(&mut whole, start).is_err() {
                return Ok(());
            }
            longer = whole;
            bytes = &longer;
            let Some(again) = Leaf::read(bytes, widths) else { return Ok(()) };
            leaf = again;
        }
        // Bytes that are no leaf have no rows that all make sense.
        if leaf.used.is_none() || leaf.rows.iter().any(Option::is_none) {
            return Ok(());
        }
        for row in leaf.rows.into_iter().flatten() {
            let (key, value) = row.of(bytes);
            visit(key, value)?;
        }
        Ok(())
    }

    fn is_visited(&self, start: u64) -> bool {
        self.visited.range(..=(start, u64::MAX)).next_back().is_some_and(|(_, end)| start < *end)
    }
}
