//! A disk in memory that does what disks do on their worst day, repeatably.
//!
//! ```text
//! write ──▶ seen by reads ──▶ pending ──sync──▶ durable ──power cut──▶ durable + some of pending
//! ```
//!
//! In: the operations of a [`Disk`], numbered from 0, and faults planned for some of these numbers.
//! Out: a record of every operation, and after [`Faulty::restart`] a disk as a crash may leave it.
//!
//! Always true: what was synced survives a power cut; of what was not, any part may. Names survive
//! in the order in which they changed, as on a journaling file system. A failed sync forgets what
//! it covered: reads still show it, no later sync writes it (as Linux does).

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// The disk; clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub struct Faulty {
    state: Arc<Mutex<State>>,
    /// How often the disk had been restarted when this handle was made.
    life: u64,
}

/// An open file of a [`Faulty`] disk.
#[derive(Debug)]
pub struct FaultyFile {
    disk: Faulty,
    number: usize,
}

/// What an operation was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the functions of the traits")]
pub enum Operation {
    List,
    Create(String),
    Open(String),
    Rename(String, String),
    Remove(String),
    SyncDirectory,
    Discard,
    Size,
    Read { offset: u64, bytes: usize },
    Write { offset: u64, bytes: usize },
    Truncate(u64),
    SyncData,
    SyncAll,
}

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an input/output error.
    Io,
    /// It fails for want of space, if it needs any.
    NoSpace,
    /// It fails because the process may open no more files, if it opens one.
    NoFiles,
    /// A read or write takes at most this many bytes, if it has any.
    Short(usize),
    /// The machine stops before it; every operation fails until [`Faulty::restart`].
    Crash,
}

/// What a crash leaves of what was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// All of it, and the system's memory too: only the process died.
    Process,
    /// All of it.
    Everything,
    /// None of it.
    Nothing,
    /// All, but only this many bytes of the last write.
    TornLast(usize),
    /// Any part: writes lost, kept, cut at a byte or with sectors missing, drawn from this seed.
    Seed(u64),
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Change>,
    operations: Vec<Operation>,
    faults: BTreeMap<usize, Fault>,
    crashed: bool,
    life: u64,
}

#[derive(Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Faulty {
    /// Plans `fault` for operation number `at`.
    pub fn plan(&self, at: usize, fault: Fault) {
        self.lock().faults.insert(at, fault);
    }

    /// Forgets all plans.
    pub fn plan_nothing(&self) {
        self.lock().faults.clear();
    }

    /// All operations so far; the next one has the number of their count.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }

    /// Stops the machine, keeps what `survival` says, and starts it again: the disk to go on with.
    ///
    /// Older handles and files fail from now on. Plans are forgotten.
    #[must_use]
    pub fn restart(&self, survival: Survival) -> Self {
        let mut state = self.lock();
        state.crashed = false;
        state.faults.clear();
        state.life += 1;
        if survival != Survival::Process {
            state.cut_power(survival);
        }
        Self {
            state: Arc::clone(&self.state),
            life: state.life,
        }
    }

    /// A disk with the same durable and pending contents that shares nothing with this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|file| Contents {
            seen: file.seen.clone(),
            durable: file.durable.clone(),
            pending: file.pending.clone(),
        });
        let copy = State {
            files: files.collect(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(copy)),
            life: 0,
        }
    }

    /// The bytes of a file as reads see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state
            .names
            .get(name)
            .map(|number| state.files[*number].seen.clone())
    }

    /// Changes the bytes of a file behind everybody's back, on the device and in memory.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn tamper(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.lock();
        let number = state.names[name];
        change(&mut state.files[number].seen);
        change(&mut state.files[number].durable);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; says how short it is to be, or why it fails.
    fn begin(&self, operation: Operation) -> io::Result<(MutexGuard<'_, State>, usize)> {
        let mut state = self.lock();
        if state.crashed || state.life != self.life {
            return Err(io::Error::other("the machine has stopped"));
        }
        let number = state.operations.len();
        let needs_space = matches!(operation, Operation::Create(_) | Operation::Write { .. });
        let opens = matches!(operation, Operation::Create(_));
        let is_sync = matches!(operation, Operation::SyncData | Operation::SyncAll);
        state.operations.push(operation);
        match state.faults.get(&number) {
            Some(Fault::Io) if !is_sync => Err(io::Error::from_raw_os_error(EIO)),
            // A sync that fails is its file's matter: see `FaultyFile::sync`.
            Some(Fault::Io) => Ok((state, 0)),
            Some(Fault::NoSpace) if needs_space => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::NoFiles) if opens => Err(io::Error::from_raw_os_error(EMFILE)),
            Some(Fault::Short(bytes)) => {
                let bytes = *bytes;
                Ok((state, bytes.max(1)))
            }
            Some(Fault::Crash) => {
                state.crashed = true;
                Err(io::Error::other("the machine has stopped"))
            }
            _ => Ok((state, usize::MAX)),
        }
    }
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const SECTOR_BYTES: usize = 512;

impl State {
    fn cut_power(&mut self, survival: Survival) {
        let mut random = match survival {
            Survival::Seed(seed) => Some(Random(seed)),
            _ => None,
        };
        let changes = std::mem::take(&mut self.pending_names);
        let kept = match (&mut random, survival) {
            (Some(random), _) => random.below(changes.len() + 1),
            (None, Survival::Nothing) => 0,
            (None, _) => changes.len(),
        };
        for change in changes.into_iter().take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for file in &mut self.files {
            let mut edits = std::mem::take(&mut file.pending);
            match survival {
                Survival::Nothing => edits.clear(),
                Survival::TornLast(bytes) => {
                    if let Some(Edit::Write(_, last)) = edits.last_mut() {
                        last.truncate(bytes);
                    }
                }
                _ => {}
            }
            for edit in edits {
                match &mut random {
                    Some(random) => random.apply_part(&edit, &mut file.durable),
                    None => edit.apply(&mut file.durable),
                }
            }
            file.seen = file.durable.clone();
        }
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => bytes.resize(*size, 0),
            Self::Write(at, new) => {
                let end = at + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(new);
            }
        }
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, number) => drop(names.insert(name, number)),
            Self::Remove(name) => drop(names.remove(&name)),
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(&from) {
                    names.insert(to, number);
                }
            }
        }
    }
}

/// SplitMix64: small, seeded, good enough to tear a disk.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn apply_part(&mut self, edit: &Edit, bytes: &mut Vec<u8>) {
        match (self.below(4), edit) {
            (0, _) => {}
            (1, Edit::Write(at, new)) => {
                let kept = self.below(new.len() + 1);
                Edit::Write(*at, new[..kept].to_vec()).apply(bytes);
            }
            (2, Edit::Write(at, new)) => {
                // Sectors of the device, not of the write: a frame may lose its middle.
                let mut start = 0;
                while start < new.len() {
                    let end = new
                        .len()
                        .min(start + SECTOR_BYTES - (at + start) % SECTOR_BYTES);
                    if self.below(2) == 0 {
                        Edit::Write(at + start, new[start..end].to_vec()).apply(bytes);
                    }
                    start = end;
                }
            }
            _ => edit.apply(bytes),
        }
    }
}

impl Disk for Faulty {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let (state, _) = self.begin(Operation::List)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        let (mut state, _) = self.begin(Operation::Create(name.to_owned()))?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.files.len();
        state.files.push(Contents::default());
        state.names.insert(name.to_owned(), number);
        state
            .pending_names
            .push(Change::Put(name.to_owned(), number));
        Ok(FaultyFile {
            disk: self.clone(),
            number,
        })
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let (state, _) = self.begin(Operation::Open(name.to_owned()))?;
        let number = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile {
            disk: self.clone(),
            number,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, _) = self.begin(Operation::Rename(from.to_owned(), to.to_owned()))?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        state
            .pending_names
            .push(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, _) = self.begin(Operation::Remove(name.to_owned()))?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.pending_names.push(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let (mut state, _) = self.begin(Operation::SyncDirectory)?;
        for change in std::mem::take(&mut state.pending_names) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn discard(&self) -> io::Result<()> {
        self.begin(Operation::Discard).map(drop)
    }
}

impl FaultyFile {
    fn sync(&self, operation: Operation) -> io::Result<()> {
        let (mut state, limit) = self.disk.begin(operation)?;
        let file = &mut state.files[self.number];
        let edits = std::mem::take(&mut file.pending);
        if limit == 0 {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        for edit in edits {
            edit.apply(&mut file.durable);
        }
        Ok(())
    }

    fn edit(file: &mut Contents, edit: Edit) {
        edit.apply(&mut file.seen);
        file.pending.push(edit);
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let (state, _) = self.disk.begin(Operation::Size)?;
        Ok(state.files[self.number].seen.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = into.len();
        let (state, limit) = self.disk.begin(Operation::Read { offset, bytes })?;
        let seen = &state.files[self.number].seen;
        let from = seen
            .len()
            .min(usize::try_from(offset).unwrap_or(usize::MAX));
        let taken = (seen.len() - from).min(bytes).min(limit);
        into[..taken].copy_from_slice(&seen[from..from + taken]);
        Ok(taken)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter()).copied().collect();
        let operation = Operation::Write {
            offset,
            bytes: bytes.len(),
        };
        let (mut state, limit) = self.disk.begin(operation)?;
        bytes.truncate(limit);
        let taken = bytes.len();
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        Self::edit(&mut state.files[self.number], Edit::Write(at, bytes));
        Ok(taken)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let (mut state, _) = self.disk.begin(Operation::Truncate(size))?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        Self::edit(&mut state.files[self.number], Edit::Truncate(size));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Operation::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Operation::SyncAll)
    }

    fn forget_cached(&self) {
        let mut state = self.disk.lock();
        let file = &mut state.files[self.number];
        file.seen = file.durable.clone();
        let Contents { seen, pending, .. } = file;
        pending.iter().for_each(|edit| edit.apply(seen));
    }
}
