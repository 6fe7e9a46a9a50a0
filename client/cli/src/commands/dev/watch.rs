//! Notices that files changed.
//!
//! In: files and folders. Out: whether they differ from when they were looked at last, and stay as they are. Always true: a
//! change is told once, and only after two looks that saw the same, so that a half-written file is not built. Looking
//! is cheaper than asking the system to tell: a function's sources are a few files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What files looked like: when each was written, and how long it is.
type Looks = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// Files that are watched.
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    /// As they were when a change was told last.
    told: Looks,
    /// As they were at the last look.
    last: Looks,
}

impl Watch {
    /// Begins with what is there.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let told = looks(&paths);
        Self {
            paths,
            last: told.clone(),
            told,
        }
    }

    /// Watches other paths; what is there now counts as told.
    pub(super) fn follow(&mut self, paths: Vec<PathBuf>) {
        if paths != self.paths {
            *self = Self::new(paths);
        }
    }

    /// Whether something changed since this was told last, and has come to rest.
    pub(super) fn changed(&mut self) -> bool {
        let now = looks(&self.paths);
        let rests = now == self.last;
        let changed = rests && now != self.told;
        if changed {
            self.told.clone_from(&now);
        }
        self.last = now;
        changed
    }
}

fn looks(paths: &[PathBuf]) -> Looks {
    let mut found = Looks::new();
    for path in paths {
        look(path, 0, &mut found);
    }
    found
}

/// What cannot be read is not there: the build says so.
fn look(path: &Path, depth: usize, found: &mut Looks) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    if !metadata.is_dir() {
        found.insert(path.to_owned(), (metadata.modified().ok(), metadata.len()));
        return;
    }
    if depth > DEPTH_MAX {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Editors keep swap files beside what they edit; installed packages are not the function's source.
        let is_source = !name.starts_with('.') && !name.ends_with('~') && name != "node_modules";
        if is_source && found.len() < FILES_MAX {
            look(&entry.path(), depth + 1, found);
        }
    }
}

/// Files that are looked at at most: beyond that, whoever wrote `watch` meant something else.
const FILES_MAX: usize = 10_000;
/// Folders in folders; a link may lead in a circle.
const DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_rests() {
        let place = tempfile::tempdir().unwrap();
        let (folder, settings) = (place.path().join("src"), place.path().join("bield.toml"));
        fs::create_dir_all(folder.join("node_modules")).unwrap();
        fs::write(folder.join("a.js"), "1").unwrap();
        let mut watch = Watch::new(vec![folder.clone(), settings.clone()]);
        assert!(!watch.changed());
        fs::write(folder.join("a.js"), "22").unwrap();
        assert!(!watch.changed(), "it may still be written to");
        assert!(watch.changed());
        assert!(!watch.changed());
        for file in ["node_modules/b.js", ".a.js.swp", "a.js~"] {
            fs::write(folder.join(file), "x").unwrap();
        }
        assert!(!watch.changed() && !watch.changed());
        fs::write(&settings, "").unwrap();
        assert!(
            !watch.changed() && watch.changed(),
            "a file that was not there"
        );
        fs::remove_file(folder.join("a.js")).unwrap();
        assert!(!watch.changed() && watch.changed(), "a file that is gone");
    }
}
