//! How much memory and disk a state takes.

use core::time::Duration;

/// Sizes and times. Any settings open what any others wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of keys and values in memory after which they are written as runs. Up to twice as many are
    /// held while that happens; beyond that, commits wait.
    pub memory_bytes: usize,
    /// Bytes of opened blocks, indexes and filters that are kept in memory.
    pub cache_bytes: u64,
    /// How long a run stays on the disk after it was replaced.
    pub retention: Duration,
    /// How the levels are laid out.
    pub levels: bield_levels::Settings,
}

impl Default for Settings {
    /// 16 MiB of writes and 32 MiB of cache, one hour.
    fn default() -> Self {
        Self {
            memory_bytes: 16 << 20,
            cache_bytes: 32 << 20,
            retention: Duration::from_secs(3600),
            levels: bield_levels::Settings::default(),
        }
    }
}
