//! One face for every store that the same driver runs against.
//!
//! ```text
//! driver ─▶ Client ─┬─ Ours      requests of 100 operations, over a state on a disk
//!                   ├─ Through   the same by a function: one call for each request
//!                   ├─ Redis     one question at a time
//!                   └─ Lsm       fjall, in this process, in the clear
//! ```
//!
//! Always true: each read checks that there was a value. What a store does not do is an error that says so.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use bield_state::{Bucket, Change, PageLimits, Request, Settings, State};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use tempfile::TempDir;

use super::draw::{KEY_BYTES, key};
use super::files::Folder;
use super::function::{Guest, Steps};
use super::place::{Disk, Place, things};
use super::redis::Redis;

/// What a driver does with a store.
pub(super) trait Client {
    /// Makes it hold keys 0 to `keys`, exclusive.
    fn fill(&mut self, keys: u64, value: &[u8]) -> Result<()>;
    /// Reads a key that is there.
    fn read(&mut self, key: &[u8; KEY_BYTES]) -> Result<()>;
    /// Writes a key that is there.
    fn update(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()>;
    /// Writes a key that is not there.
    fn insert(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        self.update(key, value)
    }
    /// Reads up to `count` keys from this one on.
    fn scan(&mut self, from: &[u8; KEY_BYTES], count: usize) -> Result<()>;
    /// Makes ready for scans and inserts that they find.
    fn scannable(&mut self, _keys: u64) -> Result<()> {
        Ok(())
    }
    /// Ends a group of operations: everything is done when it returns.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A state on a disk, called directly.
pub(super) struct Ours {
    state: State,
    bucket: Bucket,
    request: Option<Request>,
}

impl Ours {
    /// An empty one below `folder`.
    pub(super) fn new(folder: &Path, settings: Settings) -> Result<Self> {
        let place = Place::on(Disk::Folder(Folder::new(folder)?), settings)?;
        Ok(Self {
            state: place.open(&[])?,
            bucket: things(),
            request: None,
        })
    }

    fn request(&mut self) -> Result<(&mut Request, &Bucket)> {
        if self.request.is_none() {
            self.request = Some(self.state.request(&[])?);
        }
        let request = self.request.as_mut().context("it was just begun")?;
        Ok((request, &self.bucket))
    }
}

impl Client for Ours {
    fn fill(&mut self, keys: u64, value: &[u8]) -> Result<()> {
        for number in 0..keys {
            self.update(&key(number), value)?;
            if number % 1000 == 999 {
                self.end()?;
            }
        }
        self.end()
    }

    fn read(&mut self, key: &[u8; KEY_BYTES]) -> Result<()> {
        let (request, bucket) = self.request()?;
        request.get(bucket, key)?.context("a key has no value")?;
        Ok(())
    }

    fn update(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        let (request, bucket) = self.request()?;
        let set = Change::Set {
            key,
            value,
            expires: None,
        };
        Ok(request.write(bucket, &[set])?)
    }

    fn scan(&mut self, from: &[u8; KEY_BYTES], count: usize) -> Result<()> {
        let (request, bucket) = self.request()?;
        let limits = PageLimits {
            keys: count,
            bytes: 1 << 20,
        };
        // A page begins after a key: that one is read by itself.
        request.get(bucket, from)?.context("a key has no value")?;
        if count > 1 {
            let keys = count - 1;
            request.list(bucket, Some(from), PageLimits { keys, ..limits })?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if let Some(request) = self.request.take() {
            request.finish()?;
        }
        Ok(())
    }
}

/// A state on a disk, called by a function.
pub(super) struct Through {
    ours: Ours,
    guest: Guest,
    steps: Steps,
}

impl Through {
    /// An empty one below `folder`.
    pub(super) fn new(folder: &Path, settings: Settings, value: usize) -> Result<Self> {
        Ok(Self {
            ours: Ours::new(folder, settings)?,
            guest: Guest::new()?,
            steps: Steps::new(value),
        })
    }
}

impl Client for Through {
    fn fill(&mut self, keys: u64, value: &[u8]) -> Result<()> {
        self.ours.fill(keys, value)
    }

    fn read(&mut self, key: &[u8; KEY_BYTES]) -> Result<()> {
        self.steps.get(key);
        Ok(())
    }

    fn update(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        self.steps.set(key, value);
        Ok(())
    }

    fn scan(&mut self, _: &[u8; KEY_BYTES], _: usize) -> Result<()> {
        bail!(
            "wasi:keyvalue lists keys from the first on, or from where a page ended: not from a key"
        )
    }

    fn end(&mut self) -> Result<()> {
        if !self.steps.is_empty() {
            self.guest.call(&self.ours.state, &self.steps)?;
            self.steps.clear();
        }
        Ok(())
    }
}

impl Client for Redis {
    fn fill(&mut self, keys: u64, value: &[u8]) -> Result<()> {
        self.fill_many((0..keys).map(key), value)
    }

    fn read(&mut self, key: &[u8; KEY_BYTES]) -> Result<()> {
        self.get(key)?.context("redis lost a value")?;
        Ok(())
    }

    fn update(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        self.set(key, value)
    }

    fn insert(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        self.set_new(key, value)
    }

    fn scan(&mut self, from: &[u8; KEY_BYTES], count: usize) -> Result<()> {
        let found = self.page(from, count)?;
        ensure!(found > 0, "redis found nothing");
        Ok(())
    }

    fn scannable(&mut self, keys: u64) -> Result<()> {
        self.index((0..keys).map(key))
    }
}

/// fjall: sorted levels and a journal, in this process, in the clear, nothing signed.
pub(super) struct Lsm {
    keyspace: Keyspace,
    database: Database,
    folder: TempDir,
}

impl Lsm {
    /// An empty one below `folder`, with as much memory as a state has.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let folder = TempDir::new_in(folder)?;
        let settings = Settings::default();
        let database = Database::builder(folder.path())
            .cache_size(settings.cache_bytes)
            .open()?;
        let memory = settings.memory_bytes as u64;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(memory);
        Ok(Self {
            keyspace: database.keyspace("things", options)?,
            database,
            folder,
        })
    }

    /// Bytes of its files, once it has settled.
    pub(super) fn settled_bytes(&self) -> Result<u64> {
        self.keyspace.rotate_memtable_and_wait()?;
        let quiet =
            || self.database.outstanding_flushes() == 0 && self.database.active_compactions() == 0;
        let begin = std::time::Instant::now();
        while !quiet() && begin.elapsed().as_secs() < 30 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        bytes_below(self.folder.path())
    }
}

impl Client for Lsm {
    fn fill(&mut self, keys: u64, value: &[u8]) -> Result<()> {
        (0..keys).try_for_each(|number| self.update(&key(number), value))
    }

    fn read(&mut self, key: &[u8; KEY_BYTES]) -> Result<()> {
        self.keyspace.get(key)?.context("fjall lost a value")?;
        Ok(())
    }

    fn update(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.insert(&key[..], value)?)
    }

    fn scan(&mut self, from: &[u8; KEY_BYTES], count: usize) -> Result<()> {
        let found = self.keyspace.range(&from[..]..).take(count);
        for guard in found {
            std::hint::black_box(guard.into_inner()?);
        }
        Ok(())
    }
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}
