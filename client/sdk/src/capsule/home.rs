//! What one person keeps of a capsule: its name's preimage, keys, where its replicas are.
//!
//! ```text
//! $BIELD_HOME/capsules/<name>/        (0700)
//!   metadata      what the name is the hash of
//!   owner.key     configures the capsule; hex, 0600, never replaced; the owner's home only
//!   writer.key    writes records from this home; hex, 0600, never replaced
//!   keys          key ring: opens bodies; 0600, replaced whole
//!   replicas      one `URL principal` a line: where to ask first
//!   seen          newest config, own head, and heads of others that a quorum named and that verified
//!   lock          locked while any of these files is changed: read again, changed, written whole
//!   writing       locked while a process writes with writer.key
//!   pending       records that were sealed and no quorum is known to keep, see `pending`
//!   configuring   the same lock for the owner's chain
//!   unconfirmed   the same records of the owner's chain
//!   retired/      former writer keys
//! ```
//!
//! Always true: a key file is written before its public half is told to anybody; the metadata file is
//! checked against the directory's name whenever it is read; two processes never write with one key;
//! a ring or a memory that cannot be read is an error, never taken for an empty one; what was read
//! before the lock was taken is never written back, so that nobody loses a key or brings one back.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use bield_capsule::{
    CapsuleName, EntryPlace, Head, KEYRING_BYTES_MAX, KeyRing, KeyRingError, METADATA_BYTES_MAX,
    Metadata, MetadataError, WriterId, WriterKey,
};
use bield_envelope::{Principal, wire::WireError};

use super::pending::Writing;
use crate::files::{self, FileError, Write};
use crate::home::{read_key, to_hex};
use crate::{Home, HomeError};

/// The directory of one capsule.
#[derive(Debug, Clone)]
pub struct CapsuleHome {
    path: PathBuf,
    name: CapsuleName,
}

/// Something of a capsule is missing in the home directory, or not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapsuleHomeError {
    /// A file or a key could not be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// No capsule is called so.
    #[error(
        "no capsule {asked:?} in {path}: `bield capsule list` shows what is there, `bield capsule \
         open` fetches one by its full name", path = .path.display()
    )]
    None {
        /// What was asked for.
        asked: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Several capsules are called so.
    #[error("{asked:?} may be any of {found}: give more digits of its name")]
    Several {
        /// What was asked for.
        asked: String,
        /// The first digits of what was found.
        found: String,
    },
    /// The metadata file is not that of the capsule.
    #[error("{path}: {error}; restore it, or fetch it from a replica", path = .path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: MetadataError,
    },
    /// The key ring does not decode.
    #[error("{path}: {error}; restore it from a backup", path = .path.display())]
    Ring {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: WireError,
    },
    /// A line of a text file is not what it has to be.
    #[error("{path}: line {line} is not understood; restore it from a backup", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
    },
    /// This home cannot do what only the owner can.
    #[error("only the owner of the capsule can do this, and {path} is not here", path = .path.display())]
    NotTheOwner {
        /// Where the key was looked for.
        path: PathBuf,
    },
    /// This home has no key to write with.
    #[error(
        "{path} is missing: `bield capsule writer` makes a key, and the owner admits it",
        path = .path.display()
    )]
    NotAWriter {
        /// Where the key was looked for.
        path: PathBuf,
    },
    /// Records that must be sent again cannot be read.
    #[error(
        "{path} is damaged: records that may have left this machine cannot be sent again, and others in \
         their place would fork the chain; restore it, or begin a new chain: `bield capsule writer --new`",
        path = .path.display()
    )]
    Pending {
        /// The file.
        path: PathBuf,
    },
    /// A key was to be destroyed and is still there.
    #[error("{path} still has the key: another process put it back; end it, then repeat", path = .path.display())]
    NotErased {
        /// The ring.
        path: PathBuf,
    },
    /// The key ring did not take a key.
    #[error(transparent)]
    Full(#[from] KeyRingError),
    /// Another process writes with this home's key.
    #[error("another process writes to this capsule from {path}: wait until it ends", path = .path.display())]
    Busy {
        /// The capsule's directory.
        path: PathBuf,
    },
}

/// Where a replica is and who it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownReplica {
    /// Its URL.
    pub url: String,
    /// Whose statements it signs; the configuration has the last word.
    pub principal: Principal,
}

/// What this home has seen of the capsule; whoever shows less has lost or hidden something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    heads: BTreeMap<WriterId, Head>,
}

impl Seen {
    /// The newest head of `writer` ever seen here.
    #[must_use]
    pub fn head(&self, writer: &WriterId) -> Option<Head> {
        self.heads.get(writer).copied()
    }

    /// The newest head of every writer, ascending.
    pub fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.heads.values().copied()
    }

    /// Takes a head that is newer; says whether it was.
    pub fn advance(&mut self, head: Head) -> bool {
        let newer = self.head(&head.writer).is_none_or(|old| old.seq < head.seq);
        if newer {
            self.heads.insert(head.writer, head);
        }
        newer
    }
}

impl CapsuleHome {
    /// Makes a capsule's directory with everything its owner needs, keys first.
    ///
    /// # Errors
    /// Files cannot be written, or are there.
    pub fn create(
        home: &Home,
        metadata: &Metadata,
        owner: &WriterKey,
        writer: &WriterKey,
        ring: &KeyRing,
        replicas: &[KnownReplica],
    ) -> Result<Self, CapsuleHomeError> {
        let this = Self::make(home, metadata.name())?;
        files::write(
            &this.path.join(OWNER),
            &to_hex(owner.seed()),
            Write::SecretOnce,
        )?;
        files::write(
            &this.path.join(WRITER),
            &to_hex(writer.seed()),
            Write::SecretOnce,
        )?;
        this.write_ring(ring)?;
        this.keep_replicas(replicas)?;
        // The metadata last: a directory with it has all the rest.
        files::write(
            &this.path.join(METADATA),
            metadata.as_bytes(),
            Write::Public,
        )?;
        Ok(this)
    }

    /// Makes the directory of a capsule that somebody else owns. What is there stays.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn adopt(
        home: &Home,
        metadata: &Metadata,
        replicas: &[KnownReplica],
    ) -> Result<Self, CapsuleHomeError> {
        let this = Self::make(home, metadata.name())?;
        this.keep_replicas(replicas)?;
        files::write(
            &this.path.join(METADATA),
            metadata.as_bytes(),
            Write::Public,
        )?;
        Ok(this)
    }

    /// Finds a capsule by label, full name, or the first digits of its name.
    ///
    /// # Errors
    /// None or several are called so.
    pub fn find(home: &Home, asked: &str) -> Result<Self, CapsuleHomeError> {
        let mut found = Vec::new();
        for this in Self::list(home)? {
            let labelled = this
                .metadata()
                .is_ok_and(|found| found.label() == Some(asked));
            let digits = asked.len() >= PREFIX_DIGITS_MIN
                && this.name.to_string().starts_with(&asked.to_lowercase());
            if labelled || digits {
                found.push(this);
            }
        }
        match found.len() {
            0 => Err(CapsuleHomeError::None {
                asked: asked.to_owned(),
                path: home.path().join(CAPSULES),
            }),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<_> = found.iter().map(|this| this.name.short()).collect();
                Err(CapsuleHomeError::Several {
                    asked: asked.to_owned(),
                    found: names.join(", "),
                })
            }
        }
    }

    /// Every capsule in this home, by name.
    ///
    /// # Errors
    /// The directory cannot be read, or others can change it.
    pub fn list(home: &Home) -> Result<Vec<Self>, CapsuleHomeError> {
        files::check_directory(home.path())?;
        let directory = home.path().join(CAPSULES);
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| FileError::io(&directory, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|error| FileError::io(&directory, error))?
                .path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let Some(name) = name.filter(|_| path.join(METADATA).is_file()) {
                found.push(Self { path, name });
            }
        }
        found.sort_by_key(|this| this.name);
        Ok(found)
    }

    /// The capsule's name.
    #[must_use]
    pub const fn name(&self) -> CapsuleName {
        self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The capsule's metadata.
    ///
    /// # Errors
    /// The file is missing, or not this capsule's.
    pub fn metadata(&self) -> Result<Metadata, CapsuleHomeError> {
        let path = self.path.join(METADATA);
        let bytes = files::read_own(&path, METADATA_BYTES_MAX as u64)?;
        Metadata::decode_named(&bytes, &self.name)
            .map_err(|error| CapsuleHomeError::Metadata { path, error })
    }

    /// The key that configures the capsule.
    ///
    /// # Errors
    /// [`CapsuleHomeError::NotTheOwner`], or a file that is no key or that others can read.
    pub fn owner_key(&self) -> Result<WriterKey, CapsuleHomeError> {
        self.key(OWNER, |path| CapsuleHomeError::NotTheOwner { path })
    }

    /// The key with which this home writes records.
    ///
    /// # Errors
    /// [`CapsuleHomeError::NotAWriter`], or a file that is no key or that others can read.
    pub fn writer_key(&self) -> Result<WriterKey, CapsuleHomeError> {
        self.key(WRITER, |path| CapsuleHomeError::NotAWriter { path })
    }

    /// Keeps a key to write records with. One that is there stays.
    ///
    /// # Errors
    /// The file is there or cannot be written.
    pub fn keep_writer_key(&self, key: &WriterKey) -> Result<(), CapsuleHomeError> {
        let path = self.path.join(WRITER);
        Ok(files::write(&path, &to_hex(key.seed()), Write::SecretOnce)?)
    }

    /// Whether the owner's key is here.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.path.join(OWNER).is_file()
    }

    /// Whether a writer's key is here.
    #[must_use]
    pub fn is_writer(&self) -> bool {
        self.path.join(WRITER).is_file()
    }

    /// The keys that open bodies; none when this home was never given any.
    ///
    /// # Errors
    /// The file is no key ring, or others can read it.
    pub fn ring(&self) -> Result<KeyRing, CapsuleHomeError> {
        let path = self.path.join(KEYS);
        let bytes = match files::read_secret(&path, KEYRING_BYTES_MAX as u64) {
            Err(error) if error.is_missing() => return Ok(KeyRing::new()),
            bytes => bytes?,
        };
        KeyRing::decode(&bytes).map_err(|error| CapsuleHomeError::Ring { path, error })
    }

    /// Changes the key ring: read again under the lock, changed, written whole; returns what is
    /// stored then. Nothing that was read before is ever written back.
    ///
    /// # Errors
    /// The files cannot be used, or `change` refuses: then nothing changed.
    pub fn update_ring<T>(
        &self,
        change: impl FnOnce(&mut KeyRing) -> Result<T, KeyRingError>,
    ) -> Result<(T, KeyRing), CapsuleHomeError> {
        let _lock = self.change()?;
        let mut ring = self.ring()?;
        let made = change(&mut ring)?;
        self.write_ring(&ring)?;
        Ok((made, ring))
    }

    /// Destroys the key of a generation in this home; says whether it was there.
    ///
    /// # Errors
    /// The files cannot be used, or the key is still there.
    pub fn erase_generation(&self, number: u32) -> Result<bool, CapsuleHomeError> {
        let (had, _) = self.update_ring(|ring| Ok(ring.drop_generation(number)))?;
        if self.ring()?.generation(number).is_some() {
            return Err(self.not_erased());
        }
        Ok(had)
    }

    /// Destroys the key of an entry in this home; says whether it was there.
    ///
    /// # Errors
    /// As [`CapsuleHome::erase_generation`].
    pub fn erase_entry(&self, place: &EntryPlace) -> Result<bool, CapsuleHomeError> {
        let (had, _) = self.update_ring(|ring| Ok(ring.drop_entry(place)))?;
        if self.ring()?.entry(place).is_some() {
            return Err(self.not_erased());
        }
        Ok(had)
    }

    fn not_erased(&self) -> CapsuleHomeError {
        CapsuleHomeError::NotErased {
            path: self.path.join(KEYS),
        }
    }

    fn write_ring(&self, ring: &KeyRing) -> Result<(), CapsuleHomeError> {
        let bytes = ring.encode_secret();
        Ok(files::write(&self.path.join(KEYS), &bytes, Write::Secret)?)
    }

    /// The right to change files here; whoever has it sweeps up drafts of those who ended in the middle:
    /// they may hold keys that were erased since.
    fn change(&self) -> Result<File, CapsuleHomeError> {
        let path = self.path.join(LOCK);
        let at = |error| FileError::io(&path, error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at)?;
        file.lock().map_err(at)?;
        let entries = std::fs::read_dir(&self.path).map_err(at)?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let draft = DRAFTS.iter().any(|file| {
                let rest = name.strip_prefix(file);
                rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".new"))
            });
            if draft {
                files::remove(&entry.path())?;
            }
        }
        Ok(file)
    }

    /// Where to ask first.
    ///
    /// # Errors
    /// The file is missing or holds something else.
    pub fn replicas(&self) -> Result<Vec<KnownReplica>, CapsuleHomeError> {
        self.lines(REPLICAS, |line| {
            let (url, principal) = line.split_once(' ')?;
            Some(KnownReplica {
                url: url.to_owned(),
                principal: principal.parse().ok()?,
            })
        })
    }

    /// Replaces the list of where to ask first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_replicas(&self, replicas: &[KnownReplica]) -> Result<(), CapsuleHomeError> {
        let lines = replicas.iter();
        let text: String = lines
            .map(|known| format!("{} {}\n", known.url, known.principal))
            .collect();
        let path = self.path.join(REPLICAS);
        Ok(files::write(&path, text.as_bytes(), Write::Public)?)
    }

    /// What was seen of the capsule from here.
    ///
    /// # Errors
    /// The file holds something else: an unreadable memory is not an empty one.
    pub fn seen(&self) -> Result<Seen, CapsuleHomeError> {
        let heads = self.lines(SEEN, |line| {
            let mut words = line.split(' ');
            let head = Head {
                writer: words.next()?.parse().ok()?,
                seq: words.next()?.parse().ok()?,
                hash: words.next()?.parse().ok()?,
            };
            words.next().is_none().then_some(head)
        });
        let mut seen = Seen::default();
        match heads {
            Err(CapsuleHomeError::File(error)) if error.is_missing() => {}
            heads => {
                for head in heads? {
                    seen.advance(head);
                }
            }
        }
        Ok(seen)
    }

    /// Adds heads to what was seen, under the lock; returns what is known then.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn see(&self, heads: impl IntoIterator<Item = Head>) -> Result<Seen, CapsuleHomeError> {
        let _lock = self.change()?;
        let mut seen = self.seen()?;
        let mut newer = false;
        for head in heads {
            newer |= seen.advance(head);
        }
        if newer {
            let text: String = seen
                .heads()
                .map(|head| format!("{} {} {}\n", head.writer, head.seq, head.hash))
                .collect();
            let path = self.path.join(SEEN);
            files::write(&path, text.as_bytes(), Write::Public)?;
        }
        Ok(seen)
    }

    /// Takes the right to write with this home's key, which one process has at a time.
    ///
    /// # Errors
    /// [`CapsuleHomeError::Busy`], or the file cannot be used.
    pub fn write(&self) -> Result<Writing, CapsuleHomeError> {
        self.lock(WRITING, PENDING)
    }

    /// Takes the right to write with the owner's key, which one process has at a time.
    ///
    /// # Errors
    /// As [`CapsuleHome::write`].
    pub fn configure(&self) -> Result<Writing, CapsuleHomeError> {
        self.lock(CONFIGURING, UNCONFIRMED)
    }

    /// Puts this home's writer key away, so that a new one can be made: the way on when its chain must
    /// not be continued.
    ///
    /// # Errors
    /// There is none, another process writes with it, or files cannot be moved.
    pub fn retire_writer_key(&self) -> Result<(), CapsuleHomeError> {
        let mut writing = self.write()?;
        let (path, retired) = (self.path.join(WRITER), self.path.join(RETIRED));
        let to = retired.join(format!("{}.key", self.writer_key()?.id()));
        files::make_private_directory(&retired)?;
        std::fs::rename(&path, &to).map_err(|error| FileError::io(&path, error))?;
        // What it had pending is sent no more: nothing else will ever stand in those places.
        writing.drop_all()
    }

    /// Whether this writer's key was put away.
    #[must_use]
    pub fn has_retired(&self, writer: &WriterId) -> bool {
        self.path
            .join(RETIRED)
            .join(format!("{writer}.key"))
            .is_file()
    }

    fn lock(&self, file: &str, pending: &str) -> Result<Writing, CapsuleHomeError> {
        let path = self.path.join(file);
        let at = |error| FileError::io(&path, error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at)?;
        match file.try_lock() {
            Ok(()) => Writing::open(file, self.clone(), self.path.join(pending)),
            Err(TryLockError::WouldBlock) => Err(CapsuleHomeError::Busy {
                path: self.path.clone(),
            }),
            Err(TryLockError::Error(error)) => Err(at(error).into()),
        }
    }

    fn make(home: &Home, name: CapsuleName) -> Result<Self, CapsuleHomeError> {
        home.make()?;
        let path = home.path().join(CAPSULES).join(name.to_string());
        files::make_private_directory(&path)?;
        files::check_directory(&path)?;
        Ok(Self { path, name })
    }

    fn key(
        &self,
        file: &str,
        missing: impl Fn(PathBuf) -> CapsuleHomeError,
    ) -> Result<WriterKey, CapsuleHomeError> {
        files::check_directory(&self.path)?;
        let path = self.path.join(file);
        let seed = match read_key(&path) {
            Err(HomeError::File(error)) if error.is_missing() => return Err(missing(path)),
            seed => seed?,
        };
        let suite = self.metadata()?.suite();
        let key = WriterKey::from_seed(suite, seed);
        Ok(key.ok_or(HomeError::NotAKey { path })?)
    }

    fn lines<T>(
        &self,
        file: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, CapsuleHomeError> {
        let path = self.path.join(file);
        let bytes = files::read_own(&path, LINES_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .zip(1..)
            .map(|(text, line)| {
                let path = || path.clone();
                parse(text).ok_or_else(|| CapsuleHomeError::Line { path: path(), line })
            })
            .collect()
    }
}

const CAPSULES: &str = "capsules";
const METADATA: &str = "metadata";
const OWNER: &str = "owner.key";
const WRITER: &str = "writer.key";
const KEYS: &str = "keys";
const REPLICAS: &str = "replicas";
const SEEN: &str = "seen";
const WRITING: &str = "writing";
const CONFIGURING: &str = "configuring";
const RETIRED: &str = "retired";
const LOCK: &str = "lock";
const PENDING: &str = "pending";
const UNCONFIRMED: &str = "unconfirmed";
/// Files that are written under the lock only: a draft of one that nobody writes now is a leftover.
const DRAFTS: [&str; 2] = [KEYS, SEEN];
/// Digits below which a prefix is more likely a mistyped label.
const PREFIX_DIGITS_MIN: usize = 4;
/// The lines of eight thousand writers.
const LINES_BYTES_MAX: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use bield_capsule::{GenerationKey, Suite};
    use bield_envelope::{Digest, Seeded, Time};

    use super::*;

    fn stage(labels: &[&str]) -> (tempfile::TempDir, Home, Vec<CapsuleHome>) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        let mut entropy = Seeded::new(5);
        let made = labels.iter().map(|label| {
            let owner = WriterKey::generate(Suite::P256, &mut entropy);
            let writer = WriterKey::generate(Suite::P256, &mut entropy);
            let now = Time::from_secs(5);
            let metadata = Metadata::new(owner.public(), Some(label), now, &mut entropy).unwrap();
            let mut ring = KeyRing::new();
            ring.insert(GenerationKey::generate(1, &mut entropy))
                .unwrap();
            CapsuleHome::create(&home, &metadata, &owner, &writer, &ring, &[]).unwrap()
        });
        let made = made.collect();
        (directory, home, made)
    }

    #[test]
    fn a_capsule_is_found_by_label_name_and_first_digits() {
        let (_directory, home, made) = stage(&["one", "two"]);
        let name = made[0].name().to_string();
        for asked in ["one", &name, &name[..8], &name[..8].to_uppercase()] {
            assert_eq!(
                CapsuleHome::find(&home, asked).unwrap().name(),
                made[0].name()
            );
        }
        for asked in ["three", &name[..2], ""] {
            assert!(matches!(
                CapsuleHome::find(&home, asked),
                Err(CapsuleHomeError::None { .. })
            ));
        }
    }

    #[test]
    fn one_label_for_two_capsules_is_not_guessed_at() {
        let (_directory, home, made) = stage(&["same", "same"]);
        let refused = CapsuleHome::find(&home, "same").unwrap_err().to_string();
        for this in made {
            assert!(refused.contains(&this.name().short()), "{refused}");
        }
    }

    #[test]
    fn keys_are_private_never_replaced_and_the_ring_is_replaced_whole() {
        let (_directory, _home, made) = stage(&["one"]);
        let this = &made[0];
        for file in [OWNER, WRITER, KEYS] {
            let mode = this.path().join(file).metadata().unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let other = WriterKey::generate(Suite::P256, &mut Seeded::new(6));
        assert!(this.keep_writer_key(&other).is_err());
        assert_ne!(this.writer_key().unwrap().id(), other.id());
        assert!(this.erase_generation(1).unwrap());
        assert!(this.ring().unwrap().newest().is_none());
    }

    #[test]
    fn metadata_of_another_capsule_is_refused() {
        let (_directory, _home, made) = stage(&["one", "two"]);
        let (one, two) = (made[0].path().join(METADATA), made[1].path().join(METADATA));
        std::fs::copy(two, one).unwrap();
        assert!(matches!(
            made[0].metadata(),
            Err(CapsuleHomeError::Metadata { .. })
        ));
    }

    #[test]
    fn what_was_seen_only_grows_and_an_unreadable_memory_is_not_empty() {
        let (_directory, _home, made) = stage(&["one"]);
        let head = |seq| Head {
            writer: WriterId::from_bytes([3; 32]),
            seq,
            hash: Digest::from_bytes([4; 32]),
        };
        let mut seen = made[0].seen().unwrap();
        assert_eq!(seen, Seen::default());
        assert!(seen.advance(head(7)) && !seen.advance(head(6)));
        made[0].see([head(7)]).unwrap();
        made[0].see([head(5)]).unwrap();
        let again = made[0].seen().unwrap();
        assert_eq!(again.head(&head(0).writer), Some(head(7)));
        std::fs::write(made[0].path().join(SEEN), "nonsense\n").unwrap();
        assert!(matches!(
            made[0].seen(),
            Err(CapsuleHomeError::Line { line: 1, .. })
        ));
    }

    #[test]
    fn one_process_writes_at_a_time() {
        let (_directory, _home, made) = stage(&["one"]);
        let writing = made[0].write().unwrap();
        assert!(writing.pending().is_empty());
        assert!(matches!(
            made[0].write(),
            Err(CapsuleHomeError::Busy { .. })
        ));
        drop(writing);
        assert!(made[0].write().is_ok());
    }

    #[test]
    fn keys_added_at_once_all_stay_and_an_erased_one_does_not_come_back() {
        let (_directory, _home, made) = stage(&["one"]);
        let this = &made[0];
        let place = |seq| EntryPlace {
            writer: WriterId::from_bytes([3; 32]),
            seq,
            index: 0,
        };
        let add = |seq| {
            let key = bield_envelope::Secret::from_bytes([seq as u8; 32]);
            this.update_ring(|ring| ring.keep_entry(place(seq), key))
                .unwrap();
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..10).for_each(|n| add(thread * 10 + n)));
            }
            scope.spawn(|| assert!(this.erase_generation(1).unwrap()));
        });
        let ring = this.ring().unwrap();
        assert!((0..40).all(|seq| ring.entry(&place(seq)).is_some()));
        assert!(ring.generation(1).is_none());
    }

    #[test]
    fn a_leftover_draft_of_the_ring_is_swept_away_by_an_erasure() {
        let (_directory, _home, made) = stage(&["one"]);
        let draft = made[0].path().join("keys.0123456789abcdef.new");
        std::fs::copy(made[0].path().join(KEYS), &draft).unwrap();
        assert!(made[0].erase_generation(1).unwrap());
        assert!(!draft.exists());
    }

    #[test]
    fn a_retired_key_is_kept_and_makes_room_for_another() {
        let (_directory, _home, made) = stage(&["one"]);
        let id = made[0].writer_key().unwrap().id();
        made[0].retire_writer_key().unwrap();
        assert!(
            made[0]
                .path()
                .join(RETIRED)
                .join(format!("{id}.key"))
                .is_file()
        );
        assert!(!made[0].is_writer());
        let other = WriterKey::generate(Suite::P256, &mut Seeded::new(6));
        made[0].keep_writer_key(&other).unwrap();
        assert_eq!(made[0].writer_key().unwrap().id(), other.id());
    }
}
