//! Pages of redb's files, format version 3, as its `docs/design.md` describes them.
//!
//! redb trusts its pages; this reader trusts nothing: whatever the bytes are, it neither panics nor reads outside
//! of them. All numbers are little-endian.

use twox_hash::XxHash3_128;

use crate::store::Shape;

/// Bytes of a page of order 0; one of order n has 2^n times as many.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Bytes at the start of a file that say where everything is.
pub(super) const HEADER_BYTES: usize = 64 + 2 * SLOT_BYTES;

const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const GOD_BYTE: usize = MAGIC.len();
const SECOND_SLOT: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE_COMMIT: u8 = 4;
const REGION_HEADER_PAGES: usize = 16;
const REGION_DATA_PAGES: usize = 20;
const SLOT_BYTES: usize = 128;
const VERSION: u8 = 3;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// A page of 512 MiB holds the longest row there can be.
const ORDER_MAX: u8 = 17;
/// Pages of a region at most; also what redb makes by default.
const REGION_PAGES_MAX: u32 = 1 << 20;

/// Where a page is, and what it should hash to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    region: u64,
    index: u64,
    order: u8,
    checksum: u128,
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root(pub(super) Pointer);

/// How many bytes keys and values have, if all have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

/// One of the two states that a file has: that after its last commit, and the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) is_whole: bool,
    /// A later one is higher.
    transaction: u64,
    /// The tree of tables.
    pub(super) tables: Option<Root>,
    /// The tree of what redb keeps for itself.
    pub(super) system: Option<Root>,
}

/// The start of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) is_whole: bool,
    /// A crash may have torn the last commit: then the state before it counts.
    pub(super) may_be_torn: bool,
    region_header_pages: u64,
    region_data_pages: u64,
    /// The later state first.
    pub(super) slots: [Slot; 2],
}

/// What a page may be.
#[derive(Debug)]
pub(super) enum Page {
    Leaf(Leaf),
    Branch(Branch),
}

/// A page with rows: where they are in it.
#[derive(Debug)]
pub(super) struct Leaf {
    /// `None` where the bounds make no sense.
    pub(super) rows: Vec<Option<Row>>,
    /// Where its last row ends, by what it says.
    pub(super) end: Option<usize>,
    /// The same, if that is in the page.
    pub(super) used: Option<usize>,
}

/// Bounds of a row in its page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    key: (usize, usize),
    value: (usize, usize),
}

/// A page with pointers to others.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) children: Vec<Pointer>,
    used: Option<usize>,
}

/// What the tree of tables says of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableEntry {
    pub(super) root: Option<Root>,
    pub(super) rows: u64,
    pub(super) widths: Widths,
    /// It has one value for each key. Others are redb's own.
    pub(super) is_plain: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..at + 16).and_then(|bytes| bytes.try_into().ok()).map(u128::from_le_bytes)
}

impl Pointer {
    fn new(number: u64, checksum: u128) -> Pointer {
        let order = (number >> 59) as u8;
        let index = number & (0x000f_ffff >> order.min(20));
        Pointer { region: (number >> 20) & 0x000f_ffff, index, order, checksum }
    }

    /// Where the page is in a file of this layout: its first byte and its length. `None` if it is too large to
    /// be one of ours.
    pub(super) fn place(self, header: &Header) -> Option<(u64, u64)> {
        if self.order > ORDER_MAX {
            return None;
        }
        let region_pages = header.region_header_pages + header.region_data_pages;
        let page = self.region * region_pages + header.region_header_pages + (self.index << self.order);
        Some((PAGE_BYTES + page * PAGE_BYTES, PAGE_BYTES << self.order))
    }
}

impl Root {
    fn read(bytes: &[u8], at: usize) -> Option<Root> {
        // Behind it is a number of rows, which the tables' descriptions have too.
        Some(Root(Pointer::new(u64_at(bytes, at)?, u128_at(bytes, at + 8)?)))
    }
}

impl Slot {
    fn read(bytes: &[u8]) -> Option<Slot> {
        let checksum = u128_at(bytes, SLOT_BYTES - 16)?;
        let is_whole = bytes[0] == VERSION && checksum == XxHash3_128::oneshot(&bytes[..SLOT_BYTES - 16]);
        let root = |flag: usize, at| if bytes[flag] == 0 { None } else { Root::read(bytes, at) };
        let transaction = u64_at(bytes, 104)?;
        Some(Slot { is_whole, transaction, tables: root(1, 8), system: root(2, 40) })
    }
}

impl Header {
    /// Reads the start of a file. Whatever is wrong with it, something comes of it if it is long enough: a
    /// layout that makes no sense is replaced by the one that redb makes.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let slot = |at: usize| bytes.get(at..at + SLOT_BYTES).and_then(Slot::read);
        let (first, second) = (slot(64)?, slot(64 + SLOT_BYTES)?);
        let data_pages = u32_at(bytes, REGION_DATA_PAGES)?;
        let header_pages = u32_at(bytes, REGION_HEADER_PAGES)?;
        let is_layout_whole = bytes.starts_with(&MAGIC)
            && u32_at(bytes, 12) == Some(PAGE_BYTES as u32)
            && (1..=REGION_PAGES_MAX).contains(&data_pages)
            && header_pages <= REGION_PAGES_MAX;
        let flags = bytes[GOD_BYTE];
        let slots = if flags & SECOND_SLOT == 0 { [first, second] } else { [second, first] };
        // Only a crash leaves a file in which the later state is not the one that counts.
        let is_swapped = slots.iter().all(|slot| slot.is_whole)
            && slots[0].transaction < slots[1].transaction
            && (flags & RECOVERY_REQUIRED == 0 || !is_layout_whole);
        let slots = if is_swapped { [slots[1], slots[0]] } else { slots };
        let is_whole = is_layout_whole && !is_swapped;
        let (header_pages, data_pages) = if is_whole {
            (header_pages, data_pages)
        } else {
            (DEFAULT_REGION_HEADER_PAGES, REGION_PAGES_MAX)
        };
        Some(Header {
            is_whole,
            may_be_torn: flags & RECOVERY_REQUIRED != 0 && flags & TWO_PHASE_COMMIT == 0,
            region_header_pages: header_pages.into(),
            region_data_pages: data_pages.into(),
            slots,
        })
    }

    /// Without a start there is only the layout that redb makes.
    pub(super) fn unknown() -> Header {
        let slot = Slot { is_whole: false, transaction: 0, tables: None, system: None };
        Header {
            is_whole: false,
            may_be_torn: false,
            region_header_pages: DEFAULT_REGION_HEADER_PAGES.into(),
            region_data_pages: REGION_PAGES_MAX.into(),
            slots: [slot; 2],
        }
    }
}

impl From<Shape> for Widths {
    fn from(shape: Shape) -> Self {
        Widths { key: shape.key_bytes(), value: shape.value_bytes() }
    }
}

impl Widths {
    /// Of the tree of tables: names and descriptions.
    pub(super) const OF_TABLES: Widths = Widths { key: None, value: None };
}

impl Page {
    pub(super) fn read(bytes: &[u8], widths: Widths) -> Option<Page> {
        match *bytes.first()? {
            LEAF => Leaf::read(bytes, widths).map(Page::Leaf),
            BRANCH => Branch::read(bytes, widths).map(Page::Branch),
            _ => None,
        }
    }

    /// Whether the page is what the pointer to it expects.
    pub(super) fn is_whole(&self, bytes: &[u8], pointer: Pointer) -> bool {
        let used = match self {
            Page::Leaf(leaf) => leaf.used,
            Page::Branch(branch) => branch.used,
        };
        used.is_some_and(|used| XxHash3_128::oneshot(&bytes[..used]) == pointer.checksum)
    }
}

impl Leaf {
    /// Type, padding, u16 rows; the ends of all keys and of all values, u32 each, where they differ; keys; values.
    pub(super) fn read(bytes: &[u8], widths: Widths) -> Option<Leaf> {
        if *bytes.first()? != LEAF {
            return None;
        }
        let count = usize::from(u16_at(bytes, 2)?);
        let value_ends = 4 + if widths.key.is_none() { 4 * count } else { 0 };
        let keys = value_ends + if widths.value.is_none() { 4 * count } else { 0 };
        if count == 0 || keys > bytes.len() {
            return None;
        }
        let key_end = |n: usize| match widths.key {
            Some(width) => Some(keys + width * (n + 1)),
            None => u32_at(bytes, 4 + 4 * n).map(|end| end as usize),
        };
        let values = key_end(count - 1)?;
        let value_end = |n: usize| match widths.value {
            Some(width) => Some(values + width * (n + 1)),
            None => u32_at(bytes, value_ends + 4 * n).map(|end| end as usize),
        };
        let row = |n: usize| {
            let (key_start, value_start) =
                if n == 0 { (keys, values) } else { (key_end(n - 1)?, value_end(n - 1)?) };
            let row = Row { key: (key_start, key_end(n)?), value: (value_start, value_end(n)?) };
            let in_order = keys <= row.key.0
                && row.key.0 <= row.key.1
                && row.key.1 <= values
                && values <= row.value.0
                && row.value.0 <= row.value.1
                && row.value.1 <= bytes.len();
            in_order.then_some(row)
        };
        let end = value_end(count - 1);
        let used = end.filter(|end| *end <= bytes.len());
        Some(Leaf { rows: (0..count).map(row).collect(), end, used })
    }
}

/// Reads bytes as a page and goes through all of it. How many rows or children it has. A seam for the fuzzer.
pub(in crate::store) fn items(bytes: &[u8], key: Option<usize>, value: Option<usize>) -> usize {
    match Page::read(bytes, Widths { key, value }) {
        Some(Page::Leaf(leaf)) => {
            let rows = leaf.rows.iter().flatten().map(|row| row.of(bytes));
            rows.filter(|(key, value)| key.len() + value.len() <= bytes.len()).count()
        }
        Some(Page::Branch(branch)) => branch.children.len(),
        None => 0,
    }
}

impl Row {
    /// Key and value, from the page that the row was found in.
    pub(super) fn of(self, page: &[u8]) -> (&[u8], &[u8]) {
        (&page[self.key.0..self.key.1], &page[self.value.0..self.value.1])
    }
}

impl Branch {
    /// Type, padding, u16 keys, padding to 8; a checksum for each child; a page number for each; the ends of the
    /// keys, u32 each, where they differ; keys. There is one child more than keys.
    fn read(bytes: &[u8], widths: Widths) -> Option<Branch> {
        let keys = usize::from(u16_at(bytes, 2)?);
        let children = keys + 1;
        let numbers = 8 + 16 * children;
        let child =
            |n: usize| Some(Pointer::new(u64_at(bytes, numbers + 8 * n)?, u128_at(bytes, 8 + 16 * n)?));
        let after = numbers + 8 * children;
        let used = match (keys, widths.key) {
            (0, _) => None,
            (_, Some(width)) => Some(after + width * keys),
            (_, None) => u32_at(bytes, after + 4 * (keys - 1)).map(|end| end as usize),
        };
        let children = (0..children).map_while(child).collect();
        Some(Branch { children, used: used.filter(|used| *used <= bytes.len()) })
    }
}

impl TableEntry {
    /// Kind; u64 rows; u8 and root; u8 and u32 width of keys; the same of values; alignments; names of types.
    pub(super) fn read(bytes: &[u8]) -> Option<TableEntry> {
        const PLAIN: u8 = 3;
        let width = |at: usize| {
            let width = u32_at(bytes, at + 1)? as usize;
            Some((*bytes.get(at)? != 0).then_some(width))
        };
        let root = Root::read(bytes, 10)?;
        Some(TableEntry {
            root: (bytes[9] != 0).then_some(root),
            rows: u64_at(bytes, 1)?,
            widths: Widths { key: width(42)?, value: width(47)? },
            is_plain: bytes[0] == PLAIN,
        })
    }
}

/// What redb makes by default.
const DEFAULT_REGION_HEADER_PAGES: u32 = 0;
