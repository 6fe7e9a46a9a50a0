//! The rings of the door, whose memory a host can write to at any moment: every index, head, mark and byte of it.
//!
//! An input is a script of steps of [`STEP_BYTES`]: the host overwrites something, or the program does what programs do.
//! Accepted is a script in which the program never found out that it was lied to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bield_door::{Call, Calls, Inside, Limits};
use bield_ring::{Consumer, End, FRAME_ALIGN, Memory, Producer, PushError, Spin, payload_max};

/// `what (1) ‖ small (1) ‖ 6 unused ‖ a (8, little-endian) ‖ b (8)`.
const STEP_BYTES: usize = 24;
const CAPACITY: usize = 4096;
const LIMITS: Limits = Limits {
    request_bytes_max: 3000,
    bytes_max: 5000,
};

/// Memory of which the host says what is in it.
#[derive(Clone)]
struct Played(Rc<Words>);

struct Words {
    indices: [Cell<u64>; 2],
    marks: [Cell<bool>; 2],
    bytes: RefCell<Vec<u8>>,
}

const fn number(end: End) -> usize {
    match end {
        End::Producer => 0,
        End::Consumer => 1,
    }
}

impl Played {
    fn new() -> Played {
        Played(Rc::new(Words {
            indices: [Cell::new(0), Cell::new(0)],
            marks: [Cell::new(false), Cell::new(false)],
            bytes: RefCell::new(vec![0; CAPACITY]),
        }))
    }

    fn word(&self, at: usize) -> u64 {
        let bytes = self.0.bytes.borrow();
        let word = bytes[at..].first_chunk().copied();
        u64::from_le_bytes(word.unwrap_or_default())
    }

    /// The host does one step; `false` when the step is the program's.
    fn host(&self, step: &Step) -> bool {
        match step.what {
            0 => self.0.indices[0].set(step.a),
            1 => self.0.indices[1].set(step.a),
            2 => self.set_head(
                usize::from(step.small) * FRAME_ALIGN % CAPACITY,
                [step.a, step.b],
            ),
            3 => {
                self.0.marks[usize::from(step.small % 2)].set(step.a % 2 == 1);
            }
            _ => return false,
        }
        true
    }
}

impl Memory for Played {
    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn index(&self, end: End) -> u64 {
        self.0.indices[number(end)].get()
    }

    fn publish(&self, end: End, index: u64) {
        self.0.indices[number(end)].set(index);
    }

    fn fence(&self) {}

    fn mark(&self, end: End, sleeps: bool) {
        self.0.marks[number(end)].set(sleeps);
    }

    fn is_marked(&self, end: End) -> bool {
        self.0.marks[number(end)].get()
    }

    fn sleep(&self, _: End, _: Duration) {}

    fn wake(&self, end: End) {
        self.0.marks[number(end)].set(false);
    }

    fn head(&self, at: usize) -> [u64; 2] {
        assert!(at.is_multiple_of(FRAME_ALIGN), "a frame begins at {at}");
        [self.word(at), self.word(at + 8)]
    }

    fn set_head(&self, at: usize, words: [u64; 2]) {
        let mut bytes = self.0.bytes.borrow_mut();
        bytes[at..at + 8].copy_from_slice(&words[0].to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&words[1].to_le_bytes());
    }

    fn read(&self, at: usize, length: usize, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0.bytes.borrow()[at..at + length]);
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

struct Step {
    what: u8,
    small: u8,
    a: u64,
    b: u64,
}

fn steps(data: &[u8]) -> impl Iterator<Item = Step> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    data.chunks_exact(STEP_BYTES).map(move |bytes| Step {
        what: bytes[0] % 8,
        small: bytes[1],
        a: word(&bytes[8..16]),
        b: word(&bytes[16..24]),
    })
}

/// Both ends of one ring, each against a host that has the other end and the memory.
pub fn door_ring(data: &[u8]) -> bool {
    let (memory, other) = (Played::new(), Played::new());
    let never = || Spin::fixed(Duration::ZERO);
    let mut consumer = Consumer::new(memory.clone(), never());
    let mut producer = Producer::new(other.clone(), never());
    let (mut lied_in, mut lied_out) = (false, false);
    for step in steps(data) {
        if memory.host(&step) {
            if step.small >= 128 {
                other.host(&step);
            }
            continue;
        }
        match step.what {
            4 | 5 => match consumer.peek() {
                Ok(frame) => {
                    assert!(!lied_in, "believed again after a lie");
                    let Some(frame) = frame else { continue };
                    let (head, mut bytes) = (frame.head(), b"kept".to_vec());
                    assert!(head.length as usize <= payload_max(CAPACITY));
                    if step.what == 4 {
                        frame.take(&mut bytes);
                        assert!(
                            bytes.len() == 4 + head.length as usize && bytes.starts_with(b"kept")
                        );
                    } else {
                        frame.skip();
                    }
                }
                Err(_) => lied_in = true,
            },
            6 => {
                let payload = vec![step.small; (step.b % 2048) as usize];
                match producer.try_push(u32::from(step.small), step.a, &payload) {
                    Ok(()) => assert!(!lied_out, "believed again after a lie"),
                    Err(PushError::Poisoned(_)) => lied_out = true,
                    Err(_) => {}
                }
                if step.b % 3 == 0 {
                    producer.publish();
                }
            }
            _ => {
                lied_in |= consumer.wait(Duration::ZERO).is_err();
                lied_out |= producer.wait_room(64, Duration::ZERO).is_err();
            }
        }
    }
    !lied_in && !lied_out
}

/// A program's calls: what it holds of requests stays within its limits, whatever the host claims about them.
pub fn door_calls(data: &[u8]) -> bool {
    let (requests, answers) = (Played::new(), Played::new());
    let rings = [requests.clone(), answers.clone()];
    let mut calls = Calls::over(rings, LIMITS, &Inside::default());
    let mut inside: Vec<Call<Played>> = Vec::new();
    let mut lied = false;
    for step in steps(data) {
        if step.small >= 128 && step.what < 4 {
            answers.host(&step);
            continue;
        }
        if requests.host(&step) {
            continue;
        }
        if step.what < 6 {
            match calls.try_next() {
                Ok(call) => {
                    assert!(!lied, "believed again after a lie");
                    inside.extend(call);
                }
                Err(_) => lied = true,
            }
        } else if !inside.is_empty() {
            let at = (step.a % inside.len() as u64) as usize;
            drop(inside.swap_remove(at));
        }
        let lengths = inside
            .iter()
            .filter_map(|call| Some(call.bytes.as_ref().ok()?.len()));
        assert!(
            lengths
                .clone()
                .all(|length| length <= LIMITS.request_bytes_max)
        );
        assert!(lengths.sum::<usize>() <= LIMITS.bytes_max);
    }
    !lied
}

pub(crate) mod seeds {

    fn script(steps: &[(u8, u8, u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (what, small, a, b) in steps {
            bytes.extend([*what, *small, 0, 0, 0, 0, 0, 0]);
            bytes.extend(a.to_le_bytes());
            bytes.extend(b.to_le_bytes());
        }
        bytes
    }

    /// The first word of a head.
    const fn head(kind: u64, length: u64) -> u64 {
        kind << 32 | length
    }

    pub(crate) fn door_ring() -> Vec<Vec<u8>> {
        vec![
            // Two frames arrive; one is taken, one skipped; the wrap at the end of the ring; two are pushed.
            script(&[
                (2, 0, head(1, 40), 7),
                (2, 1, head(1, 1000), 8),
                (0, 0, 1088, 0),
                (4, 0, 0, 0),
                (5, 0, 0, 0),
                (7, 0, 0, 0),
                (6, 3, 1, 100),
                (6, 3, 1, 999),
            ]),
            // Round the ring.
            script(&[
                (2, 0, head(1, 1000), 1),
                (2, 16, head(1, 1000), 2),
                (2, 32, head(1, 1000), 3),
                (0, 0, 3072, 0),
                (4, 0, 0, 0),
                (4, 0, 0, 0),
                (4, 0, 0, 0),
                (2, 48, head(0xffff_ffff, 0), 0),
                (2, 0, head(1, 1008), 4),
                (0, 0, 5120, 0),
                (4, 0, 0, 0),
                (7, 0, 0, 0),
            ]),
        ]
    }

    pub(crate) fn door_calls() -> Vec<Vec<u8>> {
        vec![
            // A whole call, one in parts, a cancel.
            script(&[
                (2, 0, head(1, 40), 1),
                (2, 1, head(2, 8), 2),
                (0, 0, 64, 0),
                (4, 0, 0, 0),
                (6, 0, 0, 0),
                (2, 1, head(1, 20), 3),
                (2, 2, head(5, 0), 3),
                (2, 3, head(3, 100), 4),
                (2, 5, head(4, 0), 4),
                (0, 0, 384, 0),
                (4, 0, 0, 0),
                (4, 0, 0, 0),
                (6, 0, 0, 0),
            ]),
            // A request whose length is the 0 that stands behind the head of its first frame: nothing but its last part.
            script(&[
                (2, 0, head(2, 8), 9),
                (2, 1, head(4, 0), 9),
                (0, 0, 128, 0),
                (4, 0, 0, 0),
                (6, 0, 0, 0),
            ]),
        ]
    }
}
