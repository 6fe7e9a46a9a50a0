//! Regions and wiping with the allocator installed: what is freed is zero before it goes.

use std::cell::Cell;

use super::{EnclaveAllocator, Wiping, region, regions};

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

thread_local! {
    static WIPED: Cell<(usize, bool)> = const { Cell::new((0, false)) };
}

/// What `regions::unmap` shows of a region after wiping it.
pub(super) fn before_it_is_unmapped(region: &[u8]) {
    WIPED.set((region.len(), region.iter().all(|byte| *byte == 0)));
}

fn filled(len: usize) -> Vec<u8> {
    let mut filled = region(len).unwrap();
    assert!(filled.iter().all(|byte| *byte == 0));
    filled.fill(0xa5);
    filled
}

fn last_unmapped() -> (usize, bool) {
    WIPED.replace((0, false))
}

#[test]
fn a_region_is_zero_before_it_is_unmapped() {
    for len in [1, 4096, (3 << 20) + 5] {
        let region = filled(len);
        assert!(regions::holds(region.as_ptr()));
        assert_eq!(last_unmapped(), (0, false));
        drop(region);
        assert_eq!(last_unmapped(), (len, true), "{len}");
    }
}

#[test]
fn a_region_that_grows_or_shrinks_keeps_its_bytes_and_leaves_none() {
    let mut grown = filled(5000);
    grown.push(7);
    assert_eq!(last_unmapped(), (5000, true));
    assert!(grown[..5000].iter().all(|byte| *byte == 0xa5) && grown[5000] == 7);

    let mut shrunk = filled(5000);
    shrunk.truncate(100);
    shrunk.shrink_to_fit();
    assert_eq!(last_unmapped(), (5000, true));
    assert_eq!(shrunk, [0xa5; 100]);
    assert!(!regions::holds(shrunk.as_ptr()));
}

#[test]
fn a_region_starts_a_huge_page_and_an_empty_one_needs_none() {
    let large = region(2 << 20).unwrap();
    assert!(large.as_ptr().addr().is_multiple_of(2 << 20));
    assert!(region(0).unwrap().is_empty());
}

#[test]
fn memory_that_there_is_not_is_an_error() {
    for bytes in [usize::MAX, isize::MAX as usize, 1 << 47] {
        assert_eq!(region(bytes).unwrap_err().bytes, bytes);
    }
}

#[test]
fn regions_of_many_threads_are_told_apart() {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..50 {
                    let mut regions: Vec<Vec<u8>> = (0..4)
                        .map(|_| region(4096 * (thread + 1)).unwrap())
                        .collect();
                    for (index, region) in regions.iter_mut().enumerate() {
                        region.fill((thread * 4 + index) as u8);
                    }
                    for (index, region) in regions.iter().enumerate() {
                        let own = (thread * 4 + index) as u8;
                        assert!(region.iter().all(|byte| *byte == own), "round {round}");
                    }
                }
            });
        }
    });
}

#[test]
fn under_wiping_vectors_grow_and_shrink_as_ever() {
    let _wiping = Wiping::begin();
    let mut bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let expected: Vec<u8> = bytes.clone();
    bytes.reserve_exact(1 << 20);
    assert_eq!(bytes, expected);
    bytes.truncate(1000);
    bytes.shrink_to_fit();
    assert_eq!(bytes, expected[..1000]);
}
