//! Loading: where settings come from, and their order. Defaults < file < environment < flags.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use ::config::{Config as Merger, Value, ValueKind, builder::DefaultState};

use super::{
    Config,
    auth::RawAuth,
    check::Checker,
    default_shards,
    error::ConfigErrors,
    layer::Layer,
    raw::{RawConfig, RawListener},
    strict::Document,
};

/// The file that is read, if it exists, when none is named.
pub const DEFAULT_FILE: &str = "/etc/dunlin/dunlin.toml";

/// The variable that names the file.
const FILE_VARIABLE: &str = "DUNLIN_CONFIG";

/// Variables with this prefix are settings: `DUNLIN__LIMITS__PACKET_BYTES_MAX`.
const PREFIX: &str = "DUNLIN__";

/// Bytes of a file at most; it is read at once.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a process knows besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub directory: PathBuf,
    /// Whether the process runs as the superuser.
    pub superuser: bool,
}

/// Settings of the command line that have a flag of their own, and `--set`.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// TCP addresses that replace the configured listeners, if any.
    pub listen: Vec<String>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `acl.file`.
    pub acl_file: Option<PathBuf>,
    /// `file` of a back end of kind `password_file` with the name "passwords".
    pub password_file: Option<PathBuf>,
    /// Writes `allow_anonymous = true` for all listeners.
    pub allow_anonymous: bool,
    /// `log.filter`.
    pub log_filter: Option<String>,
    /// `log.format`.
    pub log_format: Option<String>,
    /// `key=value`, any key, in order.
    pub set: Vec<String>,
}

/// All that a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment.
    pub surroundings: Surroundings,
    /// The command line.
    pub overrides: Overrides,
}

/// A configuration and the file it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Where each value was written, by its key: `default` where nobody did.
    pub origins: BTreeMap<String, String>,
}

impl Config {
    /// Merges and checks all layers.
    ///
    /// # Errors
    /// Everything that is wrong in any layer, and what is wrong with their sum.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let surroundings = &sources.surroundings;
        let mut stack = Stack::new(&mut errors);
        let file = sources.file();
        if let Some(path) = &file {
            stack.file(path, &surroundings.directory);
        }
        stack.environment(surroundings);
        stack.overrides(&sources.overrides, &surroundings.directory);
        let (config, origins) = stack.check(surroundings, &sources.overrides);
        errors.or(Loaded { config, file, origins })
    }

    /// Checks one TOML text over the defaults; no other file, variable or flag plays a part. Relative paths
    /// are relative to the working directory.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let surroundings = Surroundings::of_process();
        let mut stack = Stack::new(&mut errors);
        stack.document(&Document { name: "configuration", text }, &surroundings.directory);
        let (config, _) = stack.check(&surroundings, &Overrides::default());
        errors.or(config)
    }

    /// The configuration as TOML, every key written. [`Config::from_toml`] reads it back to an equal value.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&RawConfig::from(self))
            .expect("paths of a checked configuration come from TOML and are UTF-8")
    }
}

impl From<Config> for Loaded {
    /// A configuration that nobody wrote.
    fn from(config: Config) -> Self {
        Loaded { config, file: None, origins: BTreeMap::new() }
    }
}

impl Sources {
    /// The file to read: the one that is named, else the default one if it exists.
    fn file(&self) -> Option<PathBuf> {
        let named = self.file.clone().or_else(|| self.surroundings.path(FILE_VARIABLE));
        named.or_else(|| Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into()))
    }
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            variables: env::vars_os().collect(),
            directory: env::current_dir().unwrap_or_else(|_| "/".into()),
            superuser: is_superuser(),
        }
    }

    /// Where data goes when nothing is said: where systemd says, else where the platform keeps data of a
    /// user, or of the system for the superuser and for users without a home.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        // systemd lists several directories with colons; the first is ours.
        let state = self.variables.get(OsStr::new("STATE_DIRECTORY")).and_then(|list| list.to_str());
        if let Some(first) = state.and_then(|list| list.split(':').next()).filter(|first| !first.is_empty()) {
            return first.into();
        }
        let home = || self.path("HOME").map(|home| home.join(".local/share"));
        let user = || self.path("XDG_DATA_HOME").filter(|path| path.is_absolute()).or_else(home);
        match user() {
            Some(data) if !self.superuser => data.join("dunlin"),
            _ => "/var/lib/dunlin".into(),
        }
    }

    /// A variable that holds a path; an empty one counts as absent.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// The owner of a process's entry in /proc is its effective user; asking the system takes unsafe code.
#[cfg(unix)]
fn is_superuser() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(not(unix))]
fn is_superuser() -> bool {
    false
}

/// Layers, lowest first, and what is wrong with them.
struct Stack<'a> {
    merger: ::config::ConfigBuilder<DefaultState>,
    errors: &'a mut ConfigErrors,
}

impl<'a> Stack<'a> {
    fn new(errors: &'a mut ConfigErrors) -> Self {
        let defaults = toml::to_string(&RawConfig::default()).expect("defaults are TOML");
        let mut stack = Self { merger: Merger::builder(), errors };
        stack.document(&Document { name: "defaults", text: &defaults }, Path::new("/"));
        stack
    }

    fn push(&mut self, layer: Layer) {
        self.merger = std::mem::take(&mut self.merger).add_source(layer);
    }

    fn document(&mut self, document: &Document<'_>, base: &Path) {
        let layer = Layer::of_document(document, base, self.errors);
        self.push(layer);
    }

    fn file(&mut self, path: &Path, directory: &Path) {
        let name = path.display().to_string();
        let text = match read(&directory.join(path)) {
            Ok(text) => text,
            Err(error) => return self.errors.of_place(&name, format!("cannot be read: {error}")),
        };
        let base = directory.join(path.parent().unwrap_or(Path::new("")));
        self.document(&Document { name: &name, text: &text }, &base);
    }

    fn setting(&mut self, place: &str, key: &str, text: &str, base: &Path) {
        if let Some(layer) = Layer::of_setting(place, key, text, base, self.errors) {
            self.push(layer);
        }
    }

    /// Variables are taken in the order of their names, so that `DUNLIN__LISTENERS` comes before
    /// `DUNLIN__LISTENERS__0__ADDRESS`.
    fn environment(&mut self, surroundings: &Surroundings) {
        for (variable, value) in &surroundings.variables {
            let Some(name) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let place = format!("environment variable {name}");
            match value.to_str() {
                Some(text) => {
                    let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
                    self.setting(&place, &key, text, &surroundings.directory);
                }
                None => self.errors.of_place(&place, "is not UTF-8"),
            }
        }
    }

    fn overrides(&mut self, overrides: &Overrides, directory: &Path) {
        for setting in &overrides.set {
            let place = format!("--set {setting}");
            match setting.split_once('=') {
                Some((key, value)) => self.setting(&place, key.trim(), value.trim(), directory),
                None => self.errors.of_place(&place, "has no value; it is written --set key=value"),
            }
        }
        if !overrides.listen.is_empty() {
            self.setting("--listen", "listeners", "[]", directory);
        }
        for (index, address) in overrides.listen.iter().enumerate() {
            self.flag(
                &format!("--listen {address}"),
                &format!("listeners.{index}.address"),
                address,
                directory,
            );
        }
        if let Some(path) = &overrides.data_dir {
            self.flag("--data-dir", "data_dir", &path.to_string_lossy(), directory);
        }
        if let Some(path) = &overrides.acl_file {
            self.flag("--acl-file", "acl.file", &path.to_string_lossy(), directory);
        }
        if let Some(path) = &overrides.password_file {
            let key = |name: &str| format!("auth.backends.{}.{name}", RawAuth::FLAG_BACKEND);
            self.flag("--password-file", &key("kind"), "password_file", directory);
            self.flag("--password-file", &key("file"), &path.to_string_lossy(), directory);
        }
        if let Some(filter) = &overrides.log_filter {
            self.flag(&format!("--log {filter}"), "log.filter", filter, directory);
        }
        if let Some(format) = &overrides.log_format {
            self.flag(&format!("--log-format {format}"), "log.format", format, directory);
        }
    }

    /// The setting of a flag whose value is text and never TOML.
    fn flag(&mut self, place: &str, key: &str, text: &str, directory: &Path) {
        let quoted = toml::Value::String(text.into()).to_string();
        self.setting(place, key, &quoted, directory);
    }

    /// Merges the layers and checks the sum. The result counts only if nothing was wrong.
    fn check(self, surroundings: &Surroundings, overrides: &Overrides) -> (Config, BTreeMap<String, String>) {
        let Self { merger, errors } = self;
        let merged = merger.build().map(|merged| merged.cache);
        let raw = merged.and_then(|merged| {
            refuse_gaps(&merged, errors);
            Ok((merged.clone().try_deserialize::<RawConfig>()?, merged))
        });
        let (mut raw, merged) = match raw {
            Ok(pair) => pair,
            Err(error) => {
                errors.of_place("configuration", error.to_string());
                (RawConfig::default(), Value::from(false))
            }
        };
        if overrides.allow_anonymous {
            let allow = |listener: &mut RawListener| listener.allow_anonymous = Some(true);
            raw.listeners.iter_mut().for_each(allow);
        }
        let config =
            Checker { merged: &merged, errors }.config(raw, default_shards(), surroundings.data_dir());
        let mut origins = BTreeMap::new();
        collect_origins("", &merged, &mut origins);
        (config, origins)
    }
}

/// Where all values were written, by their keys.
fn collect_origins(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect_origins(&key, value, found);
            }
        }
        ValueKind::Array(values) if values.iter().any(|value| matches!(value.kind, ValueKind::Table(_))) => {
            for (index, value) in values.iter().enumerate() {
                collect_origins(&format!("{key}[{index}]"), value, found);
            }
        }
        _ => {
            let origin = value.origin().filter(|origin| !origin.starts_with("defaults"));
            found.insert(key.to_owned(), origin.unwrap_or("default").to_owned());
        }
    }
}

/// An index past the end leaves a gap in the list of listeners.
fn refuse_gaps(merged: &Value, errors: &mut ConfigErrors) {
    let ValueKind::Table(root) = &merged.kind else { return };
    let Some(ValueKind::Array(listeners)) = root.get("listeners").map(|listeners| &listeners.kind) else {
        return;
    };
    if let Some(gap) = listeners.iter().position(|listener| matches!(listener.kind, ValueKind::Nil)) {
        errors.of_place("configuration", format!("listeners[{gap}] is missing, but a later one is set"));
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    fs::read_to_string(path)
}
