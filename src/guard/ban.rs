//! Bans: clients, users and addresses that are not let in, some of them for a time.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Bans that a file may have: it is read whole.
const BANS_MAX: usize = 100_000;

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Banned {
    /// A client identifier.
    Client(Arc<str>),
    /// A user name.
    User(Arc<str>),
    /// All addresses of a network.
    Network(IpNet),
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub banned: Banned,
    /// When it ends; `None` if it does not.
    pub until: Option<Timestamp>,
    /// Why, for people.
    pub why: Arc<str>,
}

/// All bans.
#[derive(Clone, Debug, Default)]
pub struct Bans {
    clients: HashMap<Arc<str>, Ban>,
    users: HashMap<Arc<str>, Ban>,
    networks: Vec<(IpNet, Ban)>,
}

/// Why a file of bans cannot be used.
#[derive(Debug)]
pub struct BanFileError {
    file: PathBuf,
    what: String,
}

/// The file as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bans: Vec<Entry>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Banned::Client(id) => write!(f, "client '{id}'"),
            Banned::User(user) => write!(f, "user '{user}'"),
            Banned::Network(network) => write!(f, "address {network}"),
        }
    }
}

impl fmt::Display for BanFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what.trim_end())
    }
}

impl std::error::Error for BanFileError {}

impl Ban {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Bans {
    /// Reads a file. One that is not there has no bans.
    ///
    /// # Errors
    /// [`BanFileError`], which names the file and the entry at fault.
    pub fn read(file: &Path) -> Result<Vec<Ban>, BanFileError> {
        let error = |what: String| BanFileError { file: file.to_path_buf(), what };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(error(format!("cannot be read: {cause}"))),
        };
        parse(&text).map_err(error)
    }

    /// The text of a file with these bans.
    #[must_use]
    pub fn write(bans: &[Ban]) -> String {
        let entries = bans.iter().map(|ban| {
            let mut entry =
                Entry { until: ban.until.map(rfc3339), why: ban.why.to_string(), ..Entry::default() };
            match &ban.banned {
                Banned::Client(id) => entry.client = Some(id.to_string()),
                Banned::User(user) => entry.user = Some(user.to_string()),
                Banned::Network(network) => entry.address = Some(network.to_string()),
            }
            entry
        });
        let document = Document { bans: entries.collect() };
        toml::to_string(&document).unwrap_or_default()
    }

    /// Replaces the file: a broker that reads it meanwhile sees the old one or the new one.
    ///
    /// # Errors
    /// [`BanFileError`]; the old one is there then.
    pub fn save(file: &Path, bans: &[Ban]) -> Result<(), BanFileError> {
        let fail = |error: io::Error| BanFileError { file: file.to_path_buf(), what: error.to_string() };
        let temporary = file.with_extension("toml.new");
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        let mut out = fs::File::create(&temporary).map_err(fail)?;
        out.write_all(Bans::write(bans).as_bytes()).and_then(|()| out.sync_all()).map_err(fail)?;
        fs::rename(&temporary, file).map_err(fail)
    }

    /// These bans and no others.
    #[must_use]
    pub fn of(bans: impl IntoIterator<Item = Ban>) -> Bans {
        let mut all = Bans::default();
        bans.into_iter().for_each(|ban| all.add(ban));
        all
    }

    /// One more. It replaces another of the same.
    pub fn add(&mut self, ban: Ban) {
        match ban.banned.clone() {
            Banned::Client(id) => {
                self.clients.insert(id, ban);
            }
            Banned::User(user) => {
                self.users.insert(user, ban);
            }
            Banned::Network(network) => {
                self.networks.retain(|(known, _)| *known != network);
                self.networks.push((network, ban));
            }
        }
    }

    /// Forgets those that have ended.
    pub fn expire(&mut self, now: Timestamp) {
        self.clients.retain(|_, ban| ban.holds(now));
        self.users.retain(|_, ban| ban.holds(now));
        self.networks.retain(|(_, ban)| ban.holds(now));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len() + self.users.len() + self.networks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ban of an address.
    #[must_use]
    pub fn of_address(&self, now: Timestamp, address: IpAddr) -> Option<&Ban> {
        let mut bans = self.networks.iter().filter(|(network, _)| network.contains(&address));
        bans.find_map(|(_, ban)| Some(ban).filter(|ban| ban.holds(now)))
    }

    /// The ban of a client identifier, or of its user.
    #[must_use]
    pub fn of_client(&self, now: Timestamp, client_id: &str, user: Option<&str>) -> Option<&Ban> {
        let client = self.clients.get(client_id).filter(|ban| ban.holds(now));
        client.or_else(|| self.users.get(user?).filter(|ban| ban.holds(now)))
    }
}

fn parse(text: &str) -> Result<Vec<Ban>, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
    if document.bans.len() > BANS_MAX {
        return Err(format!("{} bans, more than {BANS_MAX}", document.bans.len()));
    }
    let numbered = document.bans.into_iter().enumerate();
    numbered.map(|(index, entry)| ban(entry).map_err(|what| format!("bans[{index}]: {what}"))).collect()
}

fn ban(entry: Entry) -> Result<Ban, String> {
    let banned = match (entry.client, entry.user, entry.address) {
        (Some(id), None, None) => Banned::Client(id.into()),
        (None, Some(user), None) => Banned::User(user.into()),
        (None, None, Some(address)) => Banned::Network(network(&address)?),
        _ => return Err("needs one of `client`, `user` and `address`".into()),
    };
    let until = entry.until.as_deref().map(moment).transpose()?;
    Ok(Ban { banned, until, why: entry.why.into() })
}

/// An address, or a network such as `10.0.0.0/8`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse().map(|network: IpNet| network.trunc())).map_err(|_| {
        format!(
            "\"{text}\" is no address; write one such as \"192.0.2.7\" or a network such as \"10.0.0.0/8\""
        )
    })
}

fn moment(text: &str) -> Result<Timestamp, String> {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| format!("\"{text}\" is no time; write one such as \"2030-01-31T12:00:00Z\""))?;
    Ok(Timestamp::from_millis(u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)))
}

/// A moment as people write it.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(at.as_millis() / 1000);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[bans]]
        client = "loud"
        until = "2030-01-01T00:00:00Z"
        why = "floods"
        [[bans]]
        user = "mallory"
        [[bans]]
        address = "10.1.2.3/8"
    "#;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    #[test]
    fn bans_hold_for_whom_they_name_until_they_end() {
        let bans = Bans::of(parse(TEXT).unwrap());
        let (before, after) = (at(1_800_000_000), at(1_900_000_000));
        assert!(bans.of_client(before, "loud", None).is_some());
        assert!(bans.of_client(after, "loud", None).is_none());
        assert!(bans.of_client(after, "x", Some("mallory")).is_some());
        assert!(bans.of_client(after, "mallory", Some("x")).is_none());
        assert!(bans.of_address(after, "10.200.0.1".parse().unwrap()).is_some());
        assert!(bans.of_address(after, "11.0.0.1".parse().unwrap()).is_none());
        let mut bans = bans;
        bans.expire(after);
        assert_eq!(bans.len(), 2);
    }

    #[test]
    fn bans_are_read_as_they_were_written() {
        let bans = parse(TEXT).unwrap();
        assert_eq!(parse(&Bans::write(&bans)), Ok(bans));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, why) in [
            ("[[bans]]\nclient = 'a'\nuser = 'b'", "bans[0]: needs one of"),
            ("[[bans]]\nwhy = 'x'", "bans[0]: needs one of"),
            (
                "[[bans]]\nuser='a'\n[[bans]]\naddress = '10.0.0.0/99'",
                "bans[1]: \"10.0.0.0/99\" is no address",
            ),
            ("[[bans]]\nuser='a'\nuntil='tomorrow'", "bans[0]: \"tomorrow\" is no time"),
            ("[[bans]]\nusr='a'", "unknown field `usr`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
