//! What an allocation with its free costs: from the system, through the enclave's allocator, and while it wipes.
//!
//! `cargo run --release -p bield-platform --example wiping`

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::{Duration, Instant};

use bield_platform::memory::{EnclaveAllocator, Wiping};

fn main() {
    println!("bytes      system ns   enclave ns   wiping ns");
    for bytes in [64, 4 << 10, 64 << 10, 1 << 20] {
        let layout = Layout::array::<u8>(bytes).expect("a small layout");
        let system = best(|| cycle(&System, layout));
        let enclave = best(|| cycle(&EnclaveAllocator, layout));
        let wiping = {
            let _wiping = Wiping::begin();
            best(|| cycle(&EnclaveAllocator, layout))
        };
        println!("{bytes:<10} {system:>9.1} {enclave:>12.1} {wiping:>11.1}");
    }
}

/// Nanoseconds of one cycle in the best of several rounds.
fn best(act: impl Fn()) -> f64 {
    let round = || {
        let begun = Instant::now();
        (0..CYCLES).for_each(|_| act());
        begun.elapsed()
    };
    let best = (0..ROUNDS).map(|_| round()).min();
    best.unwrap_or(Duration::ZERO).as_secs_f64() * 1e9 / f64::from(CYCLES)
}

#[expect(unsafe_code, reason = "asks an allocator directly, to compare two")]
fn cycle(allocator: &impl GlobalAlloc, layout: Layout) {
    // SAFETY: the layout has a size; the block is freed once, with the same allocator and layout.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        if !block.is_null() {
            allocator.dealloc(block, layout);
        }
    }
}

const CYCLES: u32 = 20_000;
const ROUNDS: usize = 9;
