//! What the host keeps of one running guest: its world, its handles, and what it has used up.
//!
//! Always true: every call out of the guest is counted before it does anything, with the bytes it brought; what it
//! takes back is counted before it is handed over. At most one call of bytes is copied in before it is counted
//! (`AT_ONCE_BYTES`).

use std::time::Instant;

use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};

use crate::bindings::bield::function::{log, types};
use crate::keyvalue::Cursors;
use crate::limits::{INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::{Level, Limits, Stopped, World};

/// State of a store.
pub(crate) struct Guest {
    pub(crate) world: Box<dyn World>,
    pub(crate) cursors: Cursors,
    table: ResourceTable,
    limits: Limits,
    end: Instant,
    used: Used,
}

/// What a guest has used up.
#[derive(Default)]
struct Used {
    calls: u64,
    bytes: u64,
    log_bytes: u64,
    memory_bytes: u64,
    /// Granted, and not yet known to have come.
    memory_pending: u64,
    /// A memory was refused.
    memory_refused: bool,
}

impl Guest {
    pub(crate) fn new(world: Box<dyn World>, limits: Limits, begun: Instant) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        Self {
            world,
            cursors: Cursors::default(),
            table,
            limits,
            end: begun + limits.deadline,
            used: Used::default(),
        }
    }

    /// Counts a call out of the guest that brought so many bytes.
    pub(crate) fn enter(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.used.calls += 1;
        if self.used.calls > self.limits.host_calls {
            return Err(Stopped::HostCalls(self.limits.host_calls));
        }
        self.in_time()?;
        self.carry(bytes)
    }

    /// Counts bytes that go either way.
    pub(crate) fn carry(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.used.bytes = self.used.bytes.saturating_add(bytes as u64);
        if self.used.bytes > self.limits.host_bytes {
            return Err(Stopped::HostBytes(self.limits.host_bytes));
        }
        Ok(())
    }

    /// Says so when the deadline is over.
    pub(crate) fn in_time(&self) -> Result<(), Stopped> {
        if Instant::now() >= self.end {
            return Err(Stopped::Deadline(self.limits.deadline));
        }
        Ok(())
    }

    /// Gives the guest a handle to something.
    pub(crate) fn keep<T: Send + 'static>(&mut self, thing: T) -> Result<Resource<T>, Stopped> {
        self.table.push(thing).map_err(|error| match error {
            ResourceTableError::Full => Stopped::Handles(self.limits.handles),
            _ => Stopped::Malformed,
        })
    }

    /// What a handle stands for.
    pub(crate) fn look<T: 'static>(&self, handle: &Resource<T>) -> Result<&T, Stopped> {
        self.table.get(handle).map_err(|_| Stopped::Malformed)
    }

    /// Takes a handle back, and what it stands for.
    pub(crate) fn take<T: 'static>(&mut self, handle: Resource<T>) -> Result<T, Stopped> {
        self.table.delete(handle).map_err(|_| Stopped::Malformed)
    }

    /// Whether it asked for more memory than it may have.
    pub(crate) fn was_refused_memory(&self) -> bool {
        self.used.memory_refused
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let granted = self.used.memory_bytes.saturating_add(more) <= self.limits.memory_bytes;
        if granted {
            self.used.memory_bytes += more;
            self.used.memory_pending = more;
        } else {
            self.used.memory_refused = true;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.used.memory_bytes -= std::mem::take(&mut self.used.memory_pending);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX as usize)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.enter(message.len())?;
        self.used.log_bytes += message.len() as u64;
        if self.used.log_bytes > self.limits.log_bytes {
            return Err(Stopped::Log(self.limits.log_bytes).into());
        }
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.world.log(level, &message);
        Ok(())
    }
}
