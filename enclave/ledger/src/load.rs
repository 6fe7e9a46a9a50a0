//! From a host's files to a log that can be trusted, or a sentence.
//!
//! ```text
//! load ──▶ Empty            nothing that anybody was told of
//!      ├─▶ Sealed ──open_with_root──┐     a log whose root secret is not here: recovery, or joining
//!      └─▶ Found ◀──────────────────┘     snapshot ──▶ the program's state
//!             │ replay                    entries after it, in order
//!             ▼
//!          Opened { ledger, prepared, … }
//! ```
//!
//! Always true: a [`Ledger`] that comes from here continues exactly the records whose entries were given
//! to the caller. What cannot be seen here: that whole records are missing at the end, or that all files
//! are an older copy. Whoever remembers a newer checkpoint can ([`Ledger::contains`]).

use bield_capsule::Received;
use bield_capsule::ledger_file::{FileHead, log_name};
use bield_envelope::Secret;
use bield_tlog::TreeHead;
use zeroize::Zeroizing;

use crate::boxes::{self, BOX_BYTES_MAX, RootBox};
use crate::chain::{Chain, Committed};
use crate::keys::Keys;
use crate::layout::{EPOCHS_MAX, Inventory, ROOT, recovery_name};
use crate::ledger::{Ledger, Parts};
use crate::past::PastLog;
use crate::prepared::{Newest, Prepared, PreparedFile};
use crate::replay::{Replay, has_data};
use crate::{Files, LoadError, SnapshotFlaw, snapshot};

/// What was found in the files.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in the life of a process"
)]
pub enum Loaded {
    /// Nothing that anybody was told of: for [`Ledger::create`], or to join a group.
    Empty(Box<dyn Files>, Secret),
    /// A log whose root secret is not here, or does not open for this code on this machine.
    Sealed(Sealed),
    /// A log with its root secret.
    Found(Found),
}

/// Why a log's root secret is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no root file.
    Missing,
    /// It was sealed by other code or on another machine, or altered.
    Foreign,
}

/// A log that waits for its root secret.
pub struct Sealed {
    files: Box<dyn Files>,
    seal: Secret,
    inventory: Inventory,
    /// Why.
    pub why: Unavailable,
}

/// What was not as it should be, and did no harm.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Size of the snapshot that was used; none: the log is replayed from its beginning.
    pub snapshot: Option<u64>,
    /// Newer snapshots that could not be used: their sizes and why.
    pub passed_over: Vec<(u64, SnapshotFlaw)>,
    /// Bytes of a torn append at the end of the log, which nobody was told of.
    pub torn_bytes: u64,
    /// Records replayed after the snapshot.
    pub replayed: u64,
}

/// A log whose root secret is known; not verified beyond its snapshot yet.
pub struct Found {
    files: Box<dyn Files>,
    seal: Secret,
    keys: Keys,
    epoch: u32,
    inventory: Inventory,
    chain: Option<Chain>,
    past: Vec<PastLog>,
    snapshot_bytes: u64,
    report: LoadReport,
    recovering: bool,
    /// The program's state at the snapshot; none: it starts from nothing. Take it out before the replay,
    /// so that its memory is free again.
    pub snapshot: Option<Zeroizing<Vec<u8>>>,
}

/// A verified log, ready to go on.
pub struct Opened {
    /// The log.
    pub ledger: Ledger,
    /// The newest record that was prepared here and is not committed.
    pub prepared: Option<Prepared>,
    /// What was not as it should be.
    pub report: LoadReport,
}

impl Ledger {
    /// Looks at the files. `seal` is the TEE's seal key for this code on this machine.
    ///
    /// Memory: the state once, twice while the caller decodes it.
    ///
    /// # Errors
    /// A log that is not whole: see [`LoadError`].
    pub fn load(mut files: Box<dyn Files>, seal: Secret) -> Result<Loaded, LoadError> {
        let inventory = Inventory::take(&mut *files)?;
        let root = match inventory.root {
            true => RootBox::open(&seal, &files.read(ROOT, 0, BOX_BYTES_MAX)?),
            false => None,
        };
        if let Some(root) = root {
            for (epoch, segments) in inventory.logs.range(root.epoch.saturating_add(1)..).rev() {
                if has_data(&mut *files, *epoch, segments)? {
                    let (root, log) = (root.epoch, *epoch);
                    return Err(LoadError::OldRoot { root, log });
                }
            }
            let keys = Keys::new(root.root);
            let found = Found::begin(files, seal, keys, inventory, root.epoch)?;
            let named = found.capsule(root.capsule)?;
            return Ok(Loaded::Found(named));
        }
        let why = match inventory.root {
            true => Unavailable::Foreign,
            false => Unavailable::Missing,
        };
        let sealed = Sealed {
            files,
            seal,
            inventory,
            why,
        };
        sealed.or_empty()
    }
}

impl Sealed {
    /// Without a root file, a log in which nobody was told of anything is none.
    fn or_empty(mut self) -> Result<Loaded, LoadError> {
        let nothing = self.newest_epoch()?.is_none() && self.why == Unavailable::Missing;
        Ok(match nothing {
            true => Loaded::Empty(self.files, self.seal),
            false => Loaded::Sealed(self),
        })
    }

    /// Generations of the recovery files here, ascending.
    #[must_use]
    pub fn recovery_generations(&self) -> &[u32] {
        &self.inventory.recoveries
    }

    /// Opens the recovery file of `generation` with its recovery key, which gives the root secret.
    ///
    /// # Errors
    /// No such file, another key, or altered bytes.
    pub fn open_recovery(&mut self, generation: u32, key: &Secret) -> Result<Secret, LoadError> {
        let name = recovery_name(generation);
        let sealed = self.files.read(&name, 0, BOX_BYTES_MAX)?;
        let opened = boxes::open_recovery(key, generation, &sealed);
        let (_, root) = opened.ok_or(LoadError::RecoveryBox { generation })?;
        Ok(root)
    }

    /// Goes on with a root secret that people put together. The ledger that comes of it can be read, and
    /// continues in a new epoch only ([`Ledger::begin_epoch`]).
    ///
    /// # Errors
    /// Not this log's root secret, or as [`Ledger::load`].
    pub fn open_with_root(mut self, root: Secret) -> Result<Found, LoadError> {
        let keys = Keys::new(root);
        let Some(epoch) = self.newest_epoch()? else {
            return Err(LoadError::NoLog { epoch: 0 });
        };
        let mut found = Found::begin(self.files, self.seal, keys, self.inventory, epoch)?;
        found.recovering = true;
        if found.chain.is_none()
            && let Some(head) = found.first_head(epoch)?
            && Chain::begin(&found.keys, &head).is_none()
        {
            return Err(LoadError::WrongRoot);
        }
        Ok(found)
    }

    /// Gives the files and the seal key back: for a member that joins its group anew.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn Files>, Secret) {
        (self.files, self.seal)
    }

    /// The newest epoch with a record that somebody may have been told of.
    fn newest_epoch(&mut self) -> Result<Option<u32>, LoadError> {
        for (epoch, segments) in self.inventory.logs.iter().rev().take(EPOCHS_MAX) {
            if has_data(&mut *self.files, *epoch, segments)? {
                return Ok(Some(*epoch));
            }
        }
        Ok(None)
    }
}

impl Found {
    /// Opens the newest snapshot that does.
    pub(crate) fn begin(
        mut files: Box<dyn Files>,
        seal: Secret,
        keys: Keys,
        inventory: Inventory,
        epoch: u32,
    ) -> Result<Self, LoadError> {
        let mut report = LoadReport::default();
        let (mut opened, mut snapshot_bytes) = (None, 0);
        let snapshots = inventory.snapshots.get(&epoch);
        for (size, bytes) in snapshots.into_iter().flatten().rev() {
            match snapshot::read(&mut *files, &keys, (epoch, *size), *bytes)? {
                Ok(snapshot) => {
                    report.snapshot = Some(*size);
                    (opened, snapshot_bytes) = (Some(snapshot), *bytes);
                    break;
                }
                Err(flaw) => report.passed_over.push((*size, flaw)),
            }
        }
        let (chain, past, state) = match opened {
            Some(snapshot) => (Some(snapshot.chain), snapshot.past, Some(snapshot.state)),
            None => (None, Vec::new(), None),
        };
        Ok(Self {
            files,
            seal,
            keys,
            epoch,
            inventory,
            chain,
            past,
            snapshot_bytes,
            report,
            recovering: false,
            snapshot: state,
        })
    }

    /// Checks that the files are those of the capsule that the root file names.
    fn capsule(mut self, capsule: bield_capsule::CapsuleName) -> Result<Self, LoadError> {
        let segments = self.inventory.segments(self.epoch);
        let Some((first, _)) = segments.iter().next_back() else {
            return Err(LoadError::NoLog { epoch: self.epoch });
        };
        let other = LoadError::OtherLog {
            name: log_name(self.epoch, *first),
        };
        let name = match &self.chain {
            Some(chain) => chain.metadata().name(),
            None => match self.first_head(self.epoch)? {
                Some(head) => head.metadata.name(),
                None => return Ok(self), // the replay says what is wrong with the file
            },
        };
        if name == capsule {
            Ok(self)
        } else {
            Err(other)
        }
    }

    /// The root secret: identity and audience keys derive from it.
    #[must_use]
    pub const fn root(&self) -> &Secret {
        self.keys.root()
    }

    /// The log's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What was not as it should be, so far.
    #[must_use]
    pub const fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Verifies the records after the snapshot and gives the caller each one's entries, in order. Without
    /// a snapshot they begin with the first epoch's.
    ///
    /// # Errors
    /// A log that is not whole, or an entry that `each` refuses, in its words.
    pub fn replay(
        mut self,
        each: &mut dyn FnMut(Committed) -> Result<(), String>,
    ) -> Result<Opened, LoadError> {
        self.snapshot = None;
        let mut replayed = 0;
        let mut counted = |_: u32, committed: Committed| {
            replayed += 1;
            each(committed)
        };
        let mut chain = self.chain.take();
        if chain.is_none() {
            self.replay_past(&mut counted)?;
        }
        let segments = self.inventory.segments(self.epoch);
        let base = chain.as_ref().map_or(0, Chain::size);
        let replay = Replay {
            files: &mut *self.files,
            keys: &self.keys,
            epoch: self.epoch,
            segments: &segments,
            until: u64::MAX,
        };
        let (verified, tail) = replay.run(chain.take(), &mut counted)?;
        self.report.replayed = replayed;
        self.report.torn_bytes = tail.torn;
        let size = verified.size();
        let snapshots = self.inventory.snapshots.get(&self.epoch);
        let snapshots: Vec<u64> = snapshots
            .into_iter()
            .flatten()
            .map(|(size, _)| *size)
            .collect();
        if let Some(snapshot) = snapshots
            .last()
            .copied()
            .filter(|snapshot| *snapshot > size)
        {
            let log = size;
            return Err(LoadError::Truncated { log, snapshot });
        }
        // The file that a snapshot's next record goes to is made before the snapshot is.
        if let Some(index) = snapshots.iter().find(|size| !segments.contains_key(size)) {
            let (name, index) = (log_name(self.epoch, *index), *index);
            return Err(LoadError::Missing { name, index });
        }
        if size < 2 {
            return Err(LoadError::Gap {
                epoch: self.epoch,
                expected: size,
                found: None,
            });
        }
        let (file, term, prepared) = self.prepared(&verified)?;
        let ledger = Ledger::assemble(Parts {
            files: self.files,
            seal: self.seal,
            keys: self.keys,
            chain: verified,
            past: self.past,
            segments,
            tail,
            prepared: file,
            term,
            newest_prepared: prepared.as_ref().map(|prepared| prepared.record.hash()),
            snapshots,
            snapshot: (base, self.snapshot_bytes),
            recovering: self.recovering,
        })?;
        Ok(Opened {
            ledger,
            prepared,
            report: self.report,
        })
    }

    /// Replays the epochs before this one, each as far as the next one says.
    fn replay_past(
        &mut self,
        each: &mut dyn FnMut(u32, Committed) -> Result<(), String>,
    ) -> Result<(), LoadError> {
        for epoch in 0..self.epoch {
            let previous = self.first_head(epoch + 1)?.and_then(|head| head.previous);
            let Some(end) = previous else {
                return Err(LoadError::NoLog { epoch: epoch + 1 });
            };
            let segments = self.inventory.segments(epoch);
            let replay = Replay {
                files: &mut *self.files,
                keys: &self.keys,
                epoch,
                segments: &segments,
                until: end.size,
            };
            let (chain, _) = replay.run(None, each)?;
            if chain.end() != end {
                let size = end.size;
                return Err(LoadError::OtherTree { epoch, size });
            }
            let capsule = chain.metadata().name();
            let log = PastLog::new(&self.keys, epoch, capsule, chain.into_tree());
            self.past.push(log);
        }
        Ok(())
    }

    /// The head of an epoch's first file; `None` when it is not whole.
    fn first_head(&mut self, epoch: u32) -> Result<Option<FileHead>, LoadError> {
        let segments = self.inventory.segments(epoch);
        let Some((first, _)) = segments.iter().next() else {
            return Ok(None);
        };
        let name = log_name(epoch, *first);
        let length = bield_capsule::ledger_file::FILE_HEAD_BYTES_MAX as u64 + 64;
        let bytes = self.files.read(&name, 0, length)?;
        Ok(FileHead::decode(&bytes)
            .ok()
            .flatten()
            .map(|(head, _)| head))
    }

    /// What was prepared: the file, the newest term, and a record that is not committed.
    fn prepared(
        &mut self,
        chain: &Chain,
    ) -> Result<(PreparedFile, u64, Option<Prepared>), LoadError> {
        let (capsule, size) = (chain.metadata().name(), chain.size());
        let bytes = self.inventory.prepared;
        let (file, newest) = PreparedFile::load(&mut *self.files, &self.keys, &capsule, bytes)?;
        let Some(Newest {
            term,
            index,
            record,
        }) = newest
        else {
            return Ok((file, 0, None));
        };
        if index > size {
            let (log, prepared) = (size, index);
            return Err(LoadError::BehindPrepared { log, prepared });
        }
        if index < size || record.is_empty() {
            return Ok((file, term, None));
        }
        let record = Received::decode(record)
            .map_err(Into::into)
            .and_then(|record| {
                chain.verify(record.clone())?;
                Ok(record)
            })
            .map_err(|why| LoadError::Prepared { index, why })?;
        let prepared = Prepared {
            term,
            index,
            record,
        };
        Ok((file, term, Some(prepared)))
    }

    /// Gives the files and the seal key back: for a member that joins its group anew.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn Files>, Secret) {
        (self.files, self.seal)
    }

    /// Whether the log, as far as the snapshot reaches, had this head.
    #[must_use]
    pub fn snapshot_head(&self) -> Option<TreeHead> {
        self.chain.as_ref().map(Chain::head)
    }
}
