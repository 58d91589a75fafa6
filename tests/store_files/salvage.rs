//! Damage: nothing that happens to the file keeps a broker from starting, and what was not hit is still there.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    sync::Arc,
};

use dunlin::{
    store::{
        DataDirectory, FileMedium, KeyShape, Medium, Shape, ValueShape, guarded, is_damage,
        salvage::{Findings, Schema, check_pages, examine, rescue},
    },
    time::Timestamp,
};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{LOG, Scratch, names};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RETAINED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("retained");
const PAGE: usize = 4096;
const CACHE: usize = 1 << 20;

const TABLES: &[(&str, Shape)] = &[
    ("meta", Shape { key: KeyShape::Text, value: ValueShape::Number }),
    ("log", Shape::of(KeyShape::Number)),
    ("retained", Shape::of(KeyShape::Bytes)),
];

/// A store whose rows tell by themselves to which key they belong.
struct Rows;

impl Schema for Rows {
    fn tables(&self) -> &'static [(&'static str, Shape)] {
        TABLES
    }

    fn is_valid(&self, table: &str, key: &[u8], value: &[u8]) -> bool {
        match table {
            "meta" => key.starts_with(b"m"),
            "log" => value.starts_with(b"log ") && value.get(4..12) == Some(key),
            _ => value.starts_with(b"retained ") && value.get(9..9 + key.len()) == Some(key),
        }
    }

    fn is_log(&self, table: &str) -> bool {
        table == "log"
    }

    fn mend(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert("mended", 1)?;
        Ok(transaction.commit()?)
    }
}

/// xorshift64, so that a run is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn log_value(key: u64) -> Vec<u8> {
    let mut value = b"log ".to_vec();
    value.extend_from_slice(&key.to_le_bytes());
    value.extend_from_slice(format!(" message {key} ").repeat(1 + key as usize % 12).as_bytes());
    value
}

fn retained_value(key: &[u8]) -> Vec<u8> {
    let mut value = b"retained ".to_vec();
    value.extend_from_slice(key);
    value.extend_from_slice(b" is the value of this topic");
    value
}

/// Rows of both tables by the bytes of their keys.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// How the broker that wrote a database has ended.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Closed,
    Killed,
}

/// Writes a database in several commits, with rows that came and went: its bytes, and what is in it.
fn build(path: &Path, ending: Ending) -> (Vec<u8>, Content) {
    let database = Builder::new().set_cache_size(CACHE).create(path).unwrap();
    for round in 0..6_u64 {
        let transaction = database.begin_write().unwrap();
        {
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert("m-next", round).unwrap();
            let mut log = transaction.open_table(LOG).unwrap();
            let mut retained = transaction.open_table(RETAINED).unwrap();
            for key in round * 200..(round + 1) * 200 {
                log.insert(key, log_value(key).as_slice()).unwrap();
                let topic = format!("site/{}/sensor/{key}", key % 7);
                retained.insert(topic.as_bytes(), retained_value(topic.as_bytes()).as_slice()).unwrap();
            }
            if round == 3 {
                // One that needs a page of its own.
                log.insert(790, [log_value(790), vec![b'x'; 30_000]].concat().as_slice()).unwrap();
                log.retain(|key, _| key >= 150).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    let content = content(&database);
    let killed = fs::read(path).unwrap();
    drop(database);
    let bytes = match ending {
        Ending::Closed => fs::read(path).unwrap(),
        Ending::Killed => killed,
    };
    (bytes, content)
}

fn content(database: &Database) -> Content {
    let transaction = database.begin_read().unwrap();
    let mut content = Content::new();
    if let Ok(log) = transaction.open_table(LOG) {
        for row in log.iter().unwrap() {
            let (key, value) = row.unwrap();
            content.insert(key.value().to_le_bytes().to_vec(), value.value().to_vec());
        }
    }
    if let Ok(retained) = transaction.open_table(RETAINED) {
        for row in retained.iter().unwrap() {
            let (key, value) = row.unwrap();
            content.insert(key.value().to_vec(), value.value().to_vec());
        }
    }
    content
}

/// What a broker does at its start: open, read all, and if either shows damage, rescue and do it again.
fn start(directory: &Arc<DataDirectory>, medium: &FileMedium) -> (Content, Option<Findings>) {
    let why = match medium.open(CACHE) {
        Ok(database) => match guarded(|| content(&database)) {
            Ok(content) => return (content, None),
            Err(panicked) => {
                // As a process would that goes on: what has panicked is not used again.
                let _ = guarded(|| drop(database));
                panicked.to_string()
            }
        },
        Err(error) => {
            assert!(is_damage(&error), "{error:?}");
            error.to_string()
        }
    };
    let rescue = rescue(directory, &why, Timestamp::from_millis(1_795_276_080_000), &Rows).unwrap();
    assert!(rescue.quarantined.exists() && fs::read_to_string(&rescue.report).unwrap().contains(&why));
    let database = medium.open(CACHE).expect("what was rescued opens");
    (content(&database), Some(rescue.findings))
}

/// Damages the bytes and returns the pages that were hit.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> Vec<usize> {
    let len = bytes.len();
    // There is nothing left to damage.
    if len < 2 * PAGE {
        return Vec::new();
    }
    let at = random.below(len);
    let hit = match random.below(8) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            at..at + 1
        }
        2 => {
            let end = (at + 1 + random.below(64)).min(len);
            bytes[at..end].fill(0);
            at..end
        }
        3 => {
            let start = at / 512 * 512;
            let end = (start + 512 * (1 + random.below(40))).min(len);
            bytes[start..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            start..end
        }
        4 => {
            bytes.truncate(at);
            at..len
        }
        5 => {
            bytes.truncate(at / PAGE * PAGE);
            at / PAGE * PAGE..len
        }
        6 => {
            let end = 1 + random.below(400);
            bytes[..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            0..end
        }
        _ => {
            let (from, to) = (random.below(len / PAGE) * PAGE, at / PAGE * PAGE);
            bytes.copy_within(from..from + PAGE, to);
            to..to + PAGE
        }
    };
    (hit.start / PAGE..=hit.end.saturating_sub(1) / PAGE).collect()
}

/// A file of a test, and where its rows are.
struct Original {
    bytes: Vec<u8>,
    content: Content,
    /// Keys and the pages that a row of the last state is on, wherever the file has it.
    places: Vec<(Vec<u8>, Vec<std::ops::RangeInclusive<usize>>)>,
    /// Keys of the last commit.
    last_commit: Vec<Vec<u8>>,
}

/// Pages around the one long row that its page may begin or end at.
const LONG_PAGES: usize = 16;

impl Original {
    fn new(path: &Path, ending: Ending) -> Original {
        let (bytes, content) = build(path, ending);
        let mut by_value: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        let starts = |at: usize| bytes[at..].starts_with(b"log ") || bytes[at..].starts_with(b"retained ");
        let starts: Vec<usize> = (0..bytes.len()).filter(|at| starts(*at)).collect();
        // A value ends where the next begins, or somewhere before: prefixes tell them apart.
        let long =
            bytes.windows(1000).position(|window| window.iter().all(|byte| *byte == b'x')).unwrap() / PAGE;
        for (key, value) in &content {
            let head = &value[..value.len().min(200)];
            let at = starts.iter().filter(|at| bytes[**at..].starts_with(head));
            by_value.insert(key, at.copied().collect());
        }
        let pages = |at: usize| {
            let page = at / PAGE;
            if page.abs_diff(long) <= 2 * LONG_PAGES {
                page.saturating_sub(LONG_PAGES)..=page + LONG_PAGES
            } else {
                page..=page
            }
        };
        let places = by_value
            .iter()
            .map(|(key, at)| (key.to_vec(), at.iter().map(|at| pages(*at)).collect()))
            .collect();
        let last = |key: &&Vec<u8>| {
            let number = str::from_utf8(key).ok().and_then(|topic| topic.rsplit('/').next()?.parse().ok());
            number.unwrap_or_else(|| u64::from_le_bytes(key.as_slice().try_into().unwrap())) / 200 == 5
        };
        let last_commit = content.keys().filter(last).cloned().collect();
        Original { places, last_commit, bytes, content }
    }

    /// The rows that are on some page that was not hit.
    fn untouched<'a>(&'a self, hit: &'a BTreeSet<usize>) -> impl Iterator<Item = &'a Vec<u8>> {
        let spared = |pages: &std::ops::RangeInclusive<usize>| hit.range(pages.clone()).next().is_none();
        let spared = move |(_, places): &&(_, Vec<_>)| places.iter().any(spared);
        self.places.iter().filter(spared).map(|(key, _)| key)
    }
}

fn rounds() -> usize {
    env::var("DUNLIN_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

/// Whatever happens to the file: the broker starts, what is on pages that were not hit is there, what is
/// there was there before or is called doubtful, and nothing panics that is not caught.
#[test]
fn any_damage_is_survived_and_costs_only_what_it_hit() {
    let seed = env::var("DUNLIN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    for ending in [Ending::Closed, Ending::Killed] {
        let scratch = Scratch::new();
        let original = Original::new(&scratch.path("original"), ending);
        let directory = Arc::new(DataDirectory::open(&scratch.path("data")).unwrap());
        let mut random = Random(seed);
        let mut rescued = 0;
        for round in 0..rounds() {
            let mut bytes = original.bytes.clone();
            let times = 1 + random.below(3);
            let hit: BTreeSet<usize> = (0..times).flat_map(|_| damage(&mut bytes, &mut random)).collect();
            fs::write(directory.database(), &bytes).unwrap();
            let medium = FileMedium::new(directory.clone());
            let (found, findings) = start(&directory, &medium);

            let context =
                format!("{ending:?}, round {round}, DUNLIN_SEED={seed}, pages {hit:?}: {findings:#?}");
            for key in original.untouched(&hit) {
                let last_commit = match &findings {
                    // A commit that is torn may be one that a crash has torn.
                    None => matches!(ending, Ending::Killed),
                    // What it has added to the log is found.
                    Some(findings) => !findings.commit_is_whole && key.len() != 8,
                };
                let excused = last_commit && original.last_commit.contains(key);
                assert!(found.contains_key(key) || excused, "lost {key:?}: {context}");
            }
            let altered =
                found.iter().filter(|(key, value)| original.content.get(*key) != Some(value)).count();
            let admitted = findings.as_ref().map_or(0, |findings| {
                let tables = findings.tables.iter();
                tables.map(|table| table.rows_doubtful + table.rows_of_orphans + table.rows_of_earlier).sum()
            });
            assert!(altered as u64 <= admitted, "{altered} rows are not as they were: {context}");
            rescued += usize::from(findings.is_some());
        }
        assert!(rescued > rounds() / 2, "only {rescued} of the damages were seen");
    }
}

#[test]
fn a_rescue_keeps_the_damaged_file_and_tells_what_it_did() {
    let scratch = Scratch::new();
    let original = Original::new(&scratch.path("original"), Ending::Closed);
    let directory = Arc::new(DataDirectory::open(&scratch.path("data")).unwrap());
    let mut bytes = original.bytes.clone();
    // The payload of one message.
    let needle = b" message 777 ";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + 1] ^= 0x20;
    fs::write(directory.database(), &bytes).unwrap();
    let (content, findings) = start(&directory, &FileMedium::new(directory.clone()));
    assert_eq!(content.len(), original.content.len(), "a wrong letter costs no row");
    let findings = findings.unwrap();
    let log = findings.tables.iter().find(|table| table.name == "log").unwrap();
    assert!(log.rows_doubtful > 0 && log.rows_doubtful < 40, "{log:?}");
    assert_eq!(
        (log.rows_of_earlier, log.rows_of_orphans),
        (0, 0),
        "nothing is missing, so nothing is searched for"
    );
    assert_eq!((log.damage.pages_damaged, log.rows_refused, findings.rows_lost()), (1, 0, 0));

    let kept = names(&directory.quarantine());
    assert_eq!(kept, ["dunlin-20261121T154800Z.redb", "dunlin-20261121T154800Z.report.txt"]);
    assert_eq!(
        fs::read(directory.quarantine().join(&kept[0])).unwrap(),
        bytes,
        "not a byte of it was changed"
    );
    let report = fs::read_to_string(directory.quarantine().join(&kept[1])).unwrap();
    assert!(report.contains("table log: 1 pages with a wrong checksum"), "{report}");
    // A second one in the same second has another name.
    fs::write(directory.database(), b"garbage").unwrap();
    let (content, _) = start(&directory, &FileMedium::new(directory.clone()));
    assert_eq!(content, Content::new());
    assert_eq!(names(&directory.quarantine()).len(), 4);
    assert!(!directory.path().join("dunlin.redb.salvaged").exists());
}

/// The process may die while it rescues, and a file system may have no hard links.
#[test]
fn a_rescue_that_was_cut_short_is_finished_or_begun_anew() {
    let scratch = Scratch::new();
    let directory = Arc::new(DataDirectory::open(&scratch.path("data")).unwrap());
    let salvaged = directory.path().join("dunlin.redb.salvaged");
    let (_, content_before) = build(&salvaged, Ending::Closed);
    let medium = FileMedium::new(directory);
    assert_eq!(
        content(&medium.open(CACHE).unwrap()),
        content_before,
        "the damaged one was moved away already"
    );
    fs::write(&salvaged, "half").unwrap();
    assert_eq!(content(&medium.open(CACHE).unwrap()), content_before);
    assert!(!salvaged.exists());
}

#[test]
fn an_examination_finds_nothing_in_a_sound_database_and_changes_nothing() {
    let scratch = Scratch::new();
    for ending in [Ending::Closed, Ending::Killed] {
        let path = scratch.path("original");
        let (bytes, content) = build(&path, ending);
        fs::write(&path, &bytes).unwrap();
        let findings = examine(&path, &Rows).unwrap();
        assert_eq!(findings.problems(), Vec::<String>::new(), "{ending:?}");
        let rows: u64 = findings.tables.iter().map(|table| table.rows).sum();
        assert_eq!(rows as usize, content.len() + 1, "and the row of meta");
        assert_eq!(check_pages(&path, |_| {}).unwrap(), Ok(()));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        fs::remove_file(&path).unwrap();
    }
}

/// A crash in the middle of a commit leaves its note or its pages in pieces. That is what commits are for.
#[test]
fn a_torn_commit_is_no_damage() {
    let scratch = Scratch::new();
    for ending in [Ending::Killed, Ending::Closed] {
        let (mut bytes, _) = build(&scratch.path("original"), ending);
        let latest = 64 + 128 * usize::from(bytes[9] & 1);
        bytes[latest + 20] ^= 1;
        let path = scratch.path("torn");
        fs::write(&path, &bytes).unwrap();
        let checked = check_pages(&path, |_| {}).unwrap();
        match ending {
            Ending::Killed => assert_eq!(checked, Ok(())),
            Ending::Closed => assert!(checked.unwrap_err().contains("last commit")),
        }
        fs::remove_file(scratch.path("original")).unwrap();
    }
}
