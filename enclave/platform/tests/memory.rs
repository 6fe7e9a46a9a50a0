//! What the kernel and a reader of this process's memory see of regions and of wiping.
//!
//! The reader is the process itself, through `/proc/self/mem`: as much as root or a memory dump would see.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bield_platform::memory::{EnclaveAllocator, Wiping, region};

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

/// Wiping and resident memory are the whole process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn dropping_a_region_gives_its_memory_back() {
    let _alone = alone();
    let bytes = 64 << 20;
    let before = resident();
    let mut region = region(bytes).unwrap();
    assert!(
        resident() < before + bytes / 2,
        "it costs before it is used"
    );
    region.fill(1);
    let full = resident();
    assert!(full >= before + bytes * 9 / 10, "{before} to {full}");
    drop(region);
    let after = resident();
    assert!(after < before + bytes / 10, "{before} to {after}");
}

#[test]
fn an_engine_may_keep_a_region_under_any_type_that_holds_the_vector() {
    let _alone = alone();
    let bytes = 32 << 20;
    let before = resident();
    let mut region = region(bytes).unwrap();
    region.fill(1);
    let kept: std::sync::Arc<[Box<[u8]>]> = [region.into_boxed_slice()].into();
    assert!(resident() < before + bytes * 11 / 10, "it was copied");
    drop(kept);
    assert!(resident() < before + bytes / 10);
}

#[test]
fn a_region_is_a_mapping_that_decided_on_huge_pages_and_is_in_no_dump() {
    let _alone = alone();
    let region = region(8 << 20).unwrap();
    let flags = mapping_flags(region.as_ptr().addr());
    assert!(flags.iter().any(|flag| flag == "dd"), "{flags:?}");
    // Wanted, or refused where they come slowly; a kernel without huge pages has no such flag to show.
    if fs::exists("/sys/kernel/mm/transparent_hugepage/enabled").unwrap() {
        let decided = flags.iter().any(|flag| flag == "hg" || flag == "nh");
        assert!(decided, "{flags:?}");
    }
}

#[test]
fn what_is_freed_under_wiping_is_found_nowhere() {
    let _alone = alone();
    // Seen: a search that finds nothing has something to find.
    assert!(leaves_traces(Free::Drop, None) > 0, "dropped");
    assert!(leaves_traces(Free::Move, None) > 0, "moved");
    assert!(leaves_traces(Free::Shrink, None) > 0, "shrunk");
    for free in [Free::Drop, Free::Move, Free::Shrink] {
        assert_eq!(leaves_traces(free, Some(Wiping::begin())), 0, "{free:?}");
    }
}

#[test]
fn wiping_goes_on_until_the_last_guard_is_gone() {
    let _alone = alone();
    let (first, second) = (Wiping::begin(), Wiping::begin());
    drop(first);
    assert_eq!(leaves_traces(Free::Drop, Some(second)), 0);
    assert!(leaves_traces(Free::Drop, None) > 0);
}

#[derive(Clone, Copy, Debug)]
enum Free {
    Drop,
    Move,
    Shrink,
}

/// Frees a secret of its own and counts where memory still has it.
fn leaves_traces(free: Free, guard: Option<Wiping>) -> usize {
    let canary = Canary::new();
    // Small blocks go to this thread's own list of free ones, so that no other thread takes them meanwhile.
    let mut secret: Vec<u8> = Vec::with_capacity(512);
    (0..512).for_each(|at| secret.push(canary.at(at)));
    let secret = black_box(secret);
    assert!(canary.count() > 0, "it is not where it was put");
    match free {
        Free::Drop => drop(secret),
        Free::Move => {
            let mut secret = secret;
            // More than is ever free beside it.
            secret.reserve_exact(4 << 20);
            // What is in the new block is no trace of the old one.
            secret.fill(0);
            drop(black_box(secret));
        }
        Free::Shrink => {
            let mut secret = secret;
            secret[..32].fill(0);
            secret.truncate(32);
            secret.shrink_to_fit();
            drop(black_box(secret));
        }
    }
    drop(guard);
    canary.count()
}

/// Bytes that are in no other place of memory: they are computed one by one and never stored by this type.
struct Canary(u64);

impl Canary {
    fn new() -> Self {
        let mut seed = [0; 8];
        File::open("/dev/urandom")
            .unwrap()
            .read_exact_at(&mut seed, 0)
            .unwrap();
        Self(u64::from_ne_bytes(seed) | 1)
    }

    /// Repeats after [`Self::BYTES`].
    fn at(&self, index: usize) -> u8 {
        let mixed = black_box(self.0).wrapping_mul((index % Self::BYTES) as u64 * 2 + 3);
        (mixed >> 40) as u8
    }

    /// How often it is found in what this process can write.
    fn count(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        // The reader's own buffer is no place to find it; a region is not among the mappings read above.
        let mut buffer = region(1 << 20).unwrap();
        let mut found = 0;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, access) = (words.next().unwrap(), words.next().unwrap());
            if !access.starts_with("rw") {
                continue;
            }
            let (mut from, to) = bounds(range);
            while from < to {
                let part = buffer.len().min((to - from) as usize);
                // Some mappings cannot be read, some were unmapped meanwhile.
                let read = memory.read_at(&mut buffer[..part], from).unwrap_or(0);
                found += self.count_in(&buffer[..read]);
                let last = from + part as u64 == to;
                from += if last { part } else { part - Self::BYTES } as u64;
            }
        }
        found
    }

    fn count_in(&self, bytes: &[u8]) -> usize {
        let first = [self.at(0), self.at(1), self.at(2)];
        bytes
            .windows(Self::BYTES)
            .filter(|window| window[..3] == first)
            .filter(|window| (3..Self::BYTES).all(|at| window[at] == self.at(at)))
            .count()
    }

    const BYTES: usize = 16;
}

fn bounds(range: &str) -> (u64, u64) {
    let (from, to) = range.split_once('-').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    (number(from), number(to))
}

/// Bytes of this process that are in memory now.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn mapping_flags(address: usize) -> Vec<String> {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let head = line.split_whitespace().next().unwrap();
        if head.contains('-') {
            let (from, to) = bounds(head);
            inside = (from..to).contains(&(address as u64));
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping at {address:#x}");
}
