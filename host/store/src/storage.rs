//! Where a store keeps its capsules: one journal and a few small items each.
//!
//! ```text
//! DIR/identity.key                        the store's signing key (0600)
//! DIR/capsules/<name>/metadata            what the name is the hash of
//!                     00000….segment      records in order of arrival (journal)
//!                     forks               fork proofs, `u32 length ‖ proof` each
//!                     checkpoint          the newest checkpoint that left this store
//! ```
//!
//! Always true: an item is replaced whole and lasts once `put` has returned; a capsule is there from
//! the moment its metadata is, and a crash before leaves nothing that counts.
//!
//! [`Directory`] is a file system, `Objects` an object store. Not here: what the items mean.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bield_capsule::CapsuleName;

use crate::disk::{Files, FilesError};
use crate::journal::{Journal, JournalError, Options, SegmentJournal, Visit};

mod objects;

pub use objects::{ObjectStoreError, Objects};

/// A capsule's metadata.
pub const METADATA: &str = "metadata";
/// A capsule's fork proofs.
pub const FORKS: &str = "forks";
/// The newest checkpoint of a capsule that left the store.
pub const CHECKPOINT: &str = "checkpoint";

/// A place for capsules. All calls block.
pub trait Storage: Send + Sync {
    /// The capsules that are here.
    ///
    /// # Errors
    /// When the place cannot be read.
    fn capsules(&self) -> io::Result<Vec<CapsuleName>>;

    /// One item of a capsule, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, capsule: &CapsuleName, item: &'static str) -> io::Result<Option<Vec<u8>>>;

    /// Writes or replaces an item, so that it lasts.
    ///
    /// # Errors
    /// When it cannot be written; the old one, if any, is then still there.
    fn put(&self, capsule: &CapsuleName, item: &'static str, bytes: &[u8]) -> io::Result<()>;

    /// Opens a capsule's journal and shows `visit` every record in it.
    ///
    /// # Errors
    /// As [`SegmentJournal::open`].
    fn journal(
        &self,
        capsule: &CapsuleName,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Box<dyn Journal>, OpenJournalError>;

    /// Is what was appended, and not synced, still there after this process is killed?
    fn writes_through(&self) -> bool {
        true
    }
}

/// A journal does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenJournalError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Its contents cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Capsules in a directory of a file system.
#[derive(Debug)]
pub struct Directory {
    capsules: PathBuf,
}

impl Directory {
    /// Keeps capsules below `path`, which is made if it is absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn at(path: &Path) -> io::Result<Self> {
        let capsules = path.join("capsules");
        fs::create_dir_all(&capsules)?;
        File::open(path)?.sync_all()?;
        Ok(Self { capsules })
    }

    fn of(&self, capsule: &CapsuleName) -> PathBuf {
        self.capsules.join(capsule.to_string())
    }
}

impl Storage for Directory {
    fn capsules(&self) -> io::Result<Vec<CapsuleName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.capsules)? {
            let entry = entry?;
            // A directory without metadata is one that a crash kept from becoming a capsule.
            if let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                && entry.path().join(METADATA).is_file()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, capsule: &CapsuleName, item: &'static str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.of(capsule).join(item)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, capsule: &CapsuleName, item: &'static str, bytes: &[u8]) -> io::Result<()> {
        let directory = self.of(capsule);
        if item == METADATA {
            fs::create_dir_all(&directory)?;
            // Even where it is already: a crash may have come between its making and its sync.
            File::open(&self.capsules)?.sync_all()?;
        }
        let half = directory.join(format!("{item}.half"));
        let mut file = File::create(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, directory.join(item))?;
        File::open(&directory)?.sync_all()
    }

    fn journal(
        &self,
        capsule: &CapsuleName,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Box<dyn Journal>, OpenJournalError> {
        let files = Files::own(&self.of(capsule))?;
        let journal = SegmentJournal::open(files, *capsule.as_bytes(), options, visit)?;
        Ok(Box::new(journal))
    }
}
