//! Rings in real shared memory: against a queue as the model, between two threads, and with a peer that lies.

use std::collections::VecDeque;
use std::thread;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::{Consumer, Producer, PushError, Spin, payload_max};

fn views() -> [Shared; 2] {
    create().unwrap().1
}

fn ends(memory: &Shared) -> (Producer<Shared>, Consumer<Shared>) {
    let spin = || Spin::fixed(Duration::ZERO);
    (
        Producer::new(memory.clone(), spin()),
        Consumer::new(memory.clone(), spin()),
    )
}

#[derive(Debug, Clone)]
enum Step {
    Push { length: usize, kind: u32 },
    Publish,
    Take,
    Skip,
}

fn step() -> impl Strategy<Value = Step> {
    let max = payload_max(RING_BYTES);
    let length = prop_oneof![
        3 => 0..200usize,
        1 => 0..=max,
        1 => Just(max),
    ];
    prop_oneof![
        4 => (length, 0..7u32).prop_map(|(length, kind)| Step::Push { length, kind }),
        2 => Just(Step::Publish),
        3 => Just(Step::Take),
        1 => Just(Step::Skip),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The ring is a queue with a bound: what was pushed and published comes out, in order, once, and a push is
    /// refused only when more than half of the ring is in use.
    #[test]
    fn a_ring_is_a_bounded_queue(steps in prop::collection::vec(step(), 1..200)) {
        let [memory, _other] = views();
        let (mut producer, mut consumer) = ends(&memory);
        let (mut pushed, mut published) = (VecDeque::new(), VecDeque::new());
        for (id, step) in steps.into_iter().enumerate() {
            let id = id as u64;
            match step {
                Step::Push { length, kind } => {
                    let payload = vec![id as u8; length];
                    match producer.try_push(kind, id, &payload) {
                        Ok(()) => pushed.push_back((kind, id, payload)),
                        Err(error) => {
                            prop_assert_eq!(error, PushError::Full);
                            let used: usize = pushed.iter().chain(&published).map(|(_, _, bytes)| bytes.len() + 128).sum();
                            prop_assert!(used > RING_BYTES / 4, "full with {} bytes", used);
                        }
                    }
                }
                Step::Publish => {
                    producer.publish();
                    published.append(&mut pushed);
                }
                Step::Take | Step::Skip => {
                    let taken = consumer.peek().unwrap().map(|frame| {
                        let head = frame.head();
                        let mut bytes = b"before".to_vec();
                        if matches!(step, Step::Take) {
                            frame.take(&mut bytes);
                        } else {
                            frame.skip();
                        }
                        (head, bytes)
                    });
                    let expected = published.pop_front();
                    prop_assert_eq!(taken.is_some(), expected.is_some());
                    if let (Some((head, bytes)), Some((kind, id, payload))) = (taken, expected) {
                        prop_assert_eq!((head.kind, head.id), (kind, id));
                        prop_assert_eq!(head.length as usize, payload.len());
                        if matches!(step, Step::Take) {
                            prop_assert_eq!(&bytes[6..], &payload[..]);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn two_threads_pass_everything_through_a_ring_that_is_often_full() {
    let [memory, _other] = views();
    let (mut producer, mut consumer) = ends(&memory);
    let rounds = 20_000u64;
    let size = |id: u64| (id * 7919 % 50_000) as usize;
    let deadline = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        scope.spawn(move || {
            let payload = vec![1; 50_000];
            for id in 0..rounds {
                while producer.try_push(1, id, &payload[..size(id)]) == Err(PushError::Full) {
                    producer
                        .wait_room(size(id), Duration::from_secs(1))
                        .unwrap();
                }
                if id % 3 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        let mut bytes = Vec::new();
        for id in 0..rounds {
            while !consumer.wait_until(deadline).unwrap() {
                assert!(Instant::now() < deadline, "stuck at {id}");
            }
            let frame = consumer.peek().unwrap().unwrap();
            assert_eq!(frame.head().id, id);
            bytes.clear();
            frame.take(&mut bytes);
            assert_eq!(bytes.len(), size(id));
        }
    });
}

#[test]
fn directions_do_not_touch_each_other() {
    let [there, back] = views();
    let ((mut asks, mut hears), (mut answers, mut gets)) = (ends(&there), ends(&back));
    asks.try_push(1, 5, b"question").unwrap();
    answers.try_push(2, 5, b"answer").unwrap();
    asks.publish();
    answers.publish();
    let mut bytes = Vec::new();
    hears.peek().unwrap().unwrap().take(&mut bytes);
    gets.peek().unwrap().unwrap().take(&mut bytes);
    assert_eq!(bytes, b"questionanswer");
    assert!(hears.peek().unwrap().is_none() && gets.peek().unwrap().is_none());
}

#[test]
#[should_panic(expected = "outside the ring")]
fn bytes_behind_the_ring_are_not_reached() {
    let [memory, _other] = views();
    memory.read(RING_BYTES - 8, 9, &mut Vec::new());
}

#[test]
fn the_other_side_maps_the_same_bytes_and_refuses_other_memory() {
    let (file, [there, _]) = create().unwrap();
    let [same, _] = open(&file).unwrap();
    let (mut producer, mut consumer) = (ends(&there).0, ends(&same).1);
    producer.try_push(3, 9, b"hello").unwrap();
    producer.publish();
    assert_eq!(consumer.peek().unwrap().unwrap().head().id, 9);
    assert!(
        rustix::fs::ftruncate(&file, 0).is_err(),
        "nobody can shrink it"
    );

    let unsealed = rustix::fs::memfd_create(c"other", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, MAPPING_BYTES as u64).unwrap();
    assert!(matches!(open(&unsealed), Err(MapError::NotSealed)));
    rustix::fs::ftruncate(&unsealed, 4096).unwrap();
    assert!(matches!(
        open(&unsealed),
        Err(MapError::OtherSize { found: 4096 })
    ));
    assert!(open(io::stdin()).is_err());
}

#[test]
fn a_sleeping_consumer_is_woken_by_a_frame_and_by_a_hang_up() {
    let [memory, _other] = views();
    let (mut producer, mut consumer) = ends(&memory);
    let waker = consumer.waker();
    let forever = Duration::from_secs(3600);
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            while !consumer.wait(forever).unwrap() {}
            consumer.peek().unwrap().unwrap().skip();
            while !consumer.is_hung_up() {
                assert!(!consumer.wait(forever).unwrap());
            }
        });
        while !memory.is_marked(End::Consumer) {
            thread::yield_now();
        }
        producer.try_push(1, 1, b"").unwrap();
        producer.publish();
        while !memory.is_marked(End::Consumer) {
            thread::yield_now();
        }
        waker.hang_up();
        sleeper.join().unwrap();
    });
    assert!(producer.wakes() <= 1);
}
