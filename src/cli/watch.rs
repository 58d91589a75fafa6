#![expect(
    clippy::disallowed_methods,
    reason = "files are looked at now and then: not every file system tells of changes"
)]

//! Files whose changes are a reason to read the configuration again.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::Config;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Files, with what tells one content from another.
pub(super) struct Watch(Vec<(PathBuf, Signature)>);

/// Device, inode, size and time of the last change; `None` if the file is not there.
type Signature = Option<(u64, u64, u64, i64, i64)>;

impl Watch {
    /// The file of a configuration, and those that it names.
    pub(super) fn of(file: Option<&Path>, config: &Config) -> Watch {
        let mut files: Vec<PathBuf> = file.into_iter().map(Path::to_path_buf).collect();
        files.push(config.bans_file.clone());
        files.extend(config.acl.iter().map(|acl| acl.file.clone()));
        files.extend(
            config.auth.backends.values().filter_map(|backend| backend.file().map(Path::to_path_buf)),
        );
        Watch(files.into_iter().map(|file| (file.clone(), signature(&file))).collect())
    }

    /// Waits until one has changed, and no change was seen since.
    pub(super) async fn changed(&mut self) -> PathBuf {
        let mut changed: Option<PathBuf> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let before = changed.clone();
            let mut is_quiet = true;
            for (file, known) in &mut self.0 {
                let now = signature(file);
                if now != *known {
                    *known = now;
                    is_quiet = false;
                    changed = Some(file.clone());
                }
            }
            // Somebody who writes several files has finished.
            if let Some(file) = before.filter(|_| is_quiet) {
                return file;
            }
        }
    }
}

fn signature(file: &Path) -> Signature {
    let data = fs::metadata(file).ok()?;
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}
