//! The order of loads and stores, every interleaving of two threads, under `loom`.
//!
//! The memory is modelled word by word; a frame's bytes are cells in which `loom` finds any access that is not ordered by
//! the indices. Sleeping is modelled as the kernel does it: the mark is looked at under the lock that a waker takes.
//! A lost wake-up is a deadlock, which `loom` reports.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::time::Duration;

use bield_ring::{Consumer, End, Memory, Producer, PushError, Spin};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Four places for frames of up to 48 bytes.
const CAPACITY: usize = 256;

struct Words {
    indices: [AtomicU64; 2],
    marks: [AtomicU32; 2],
    beds: [(Mutex<()>, Condvar); 2],
    /// One cell a place: head words and the payload's first byte.
    places: [UnsafeCell<([u64; 2], u8)>; CAPACITY / 64],
}

#[derive(Clone)]
struct Modelled(Arc<Words>);

const fn number(end: End) -> usize {
    match end {
        End::Producer => 0,
        End::Consumer => 1,
    }
}

impl Modelled {
    fn new() -> Modelled {
        Modelled(Arc::new(Words {
            indices: [AtomicU64::new(0), AtomicU64::new(0)],
            marks: [AtomicU32::new(0), AtomicU32::new(0)],
            beds: [
                (Mutex::new(()), Condvar::new()),
                (Mutex::new(()), Condvar::new()),
            ],
            places: std::array::from_fn(|_| UnsafeCell::new(([0; 2], 0))),
        }))
    }

    fn ends(&self) -> (Producer<Modelled>, Consumer<Modelled>) {
        let never = || Spin::fixed(Duration::ZERO);
        (
            Producer::new(self.clone(), never()),
            Consumer::new(self.clone(), never()),
        )
    }
}

#[expect(unsafe_code, reason = "loom's cells are reached through raw pointers")]
impl Memory for Modelled {
    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn index(&self, end: End) -> u64 {
        self.0.indices[number(end)].load(Ordering::Acquire)
    }

    fn publish(&self, end: End, index: u64) {
        self.0.indices[number(end)].store(index, Ordering::Release);
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn mark(&self, end: End, sleeps: bool) {
        self.0.marks[number(end)].store(u32::from(sleeps), Ordering::Relaxed);
    }

    fn is_marked(&self, end: End) -> bool {
        self.0.marks[number(end)].load(Ordering::Relaxed) != 0
    }

    fn sleep(&self, end: End, _: Duration) {
        let (bed, woken) = &self.0.beds[number(end)];
        let bed = bed.lock().unwrap();
        if self.is_marked(end) {
            drop(woken.wait(bed).unwrap());
        }
    }

    fn wake(&self, end: End) {
        self.0.marks[number(end)].store(0, Ordering::SeqCst);
        let (bed, woken) = &self.0.beds[number(end)];
        let _bed = bed.lock().unwrap();
        woken.notify_all();
    }

    fn head(&self, at: usize) -> [u64; 2] {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.0.places[at / 64].with(|place| unsafe { (*place).0 })
    }

    fn set_head(&self, at: usize, words: [u64; 2]) {
        // SAFETY: loom checks that nobody else has it.
        self.0.places[at / 64].with_mut(|place| unsafe { (*place).0 = words });
    }

    fn read(&self, at: usize, length: usize, into: &mut Vec<u8>) {
        // SAFETY: loom checks that nobody writes meanwhile.
        let byte = self.0.places[at / 64].with(|place| unsafe { (*place).1 });
        into.extend(std::iter::repeat_n(byte, length));
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        let byte = bytes.first().copied().unwrap_or(0);
        // SAFETY: loom checks that nobody else has it.
        self.0.places[at / 64].with_mut(|place| unsafe { (*place).1 = byte });
    }
}

/// Checks every interleaving in which threads are interrupted three times where they need not be: all others take
/// minutes to hours, and a lost wake-up needs two.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn take(consumer: &mut Consumer<Modelled>) -> u8 {
    let mut bytes = Vec::new();
    while !consumer.wait(Duration::MAX).unwrap() {}
    consumer.peek().unwrap().unwrap().take(&mut bytes);
    bytes[0]
}

/// A message is seen whole, and a consumer that goes to sleep at any moment is woken for it.
#[test]
fn a_sleeping_consumer_is_always_woken() {
    check(|| {
        let memory = Modelled::new();
        let (mut producer, mut consumer) = memory.ends();
        let writer = thread::spawn(move || {
            for byte in 1..=2 {
                producer.try_push(1, 0, &[byte]).unwrap();
                producer.publish();
            }
        });
        assert_eq!(take(&mut consumer), 1);
        assert_eq!(take(&mut consumer), 2);
        writer.join().unwrap();
    });
}

/// Six frames through four places: the ring is full on the way, and a producer that sleeps for room is woken.
#[test]
fn a_full_ring_loses_nothing_and_its_producer_is_woken() {
    check(|| {
        let memory = Modelled::new();
        let (mut producer, mut consumer) = memory.ends();
        for byte in 1..=4 {
            producer.try_push(1, 0, &[byte]).unwrap();
        }
        producer.publish();
        let writer = thread::spawn(move || {
            for byte in 5..=6 {
                while producer.try_push(1, 0, &[byte]) == Err(PushError::Full) {
                    producer.wait_room(1, Duration::MAX).unwrap();
                }
                producer.publish();
            }
        });
        for byte in 1..=6 {
            assert_eq!(take(&mut consumer), byte);
        }
        writer.join().unwrap();
    });
}

/// Whoever learns that its peer is gone does not sleep on.
#[test]
fn a_consumer_whose_peer_is_gone_comes_back() {
    check(|| {
        let memory = Modelled::new();
        let (_producer, mut consumer) = memory.ends();
        let waker = consumer.waker();
        let reaper = thread::spawn(move || waker.hang_up());
        while !consumer.is_hung_up() {
            assert!(!consumer.wait(Duration::MAX).unwrap());
        }
        reaper.join().unwrap();
    });
}
