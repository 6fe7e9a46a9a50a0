//! Where one answer is put together, frame by frame, by whoever reads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bield_protocol::call::ANSWER_AHEAD_BYTES_MAX;
use bield_ring::{Frame, Kind, Poisoned, Shared};

use crate::enclave::ANSWER_BYTES_MAX;

/// Bytes of an answer in parts that are kept until they are handed out: what a program may be ahead, and its longest part,
/// a sealed chunk with its head.
pub(super) const UNTAKEN_BYTES_MAX: usize = ANSWER_AHEAD_BYTES_MAX + (2 << 20);

/// Where one answer is put together.
#[derive(Default)]
pub(super) struct Slot {
    answer: Mutex<Answer>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// How many more were taken out of it and are not handed out yet; of an answer in parts only.
    pub(super) ahead: usize,
    /// Of how many bytes, when that was told.
    length: Option<usize>,
    /// Parts came before any length did.
    pub(super) is_streamed: bool,
    pub(super) end: Option<End>,
    /// Nobody reads, and this call is to.
    pub(super) may_read: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    Complete,
    /// The program says that there is no answer, or is gone.
    Lost,
    TooLong,
}

impl Slot {
    /// Takes a frame of this answer.
    pub(super) fn take(&self, kind: Kind, frame: Frame<'_, Shared>) -> Result<(), Poisoned> {
        // Only a host says how much it has taken.
        if kind == Kind::More {
            return Err(Poisoned);
        }
        let mut answer = self.lock();
        let all = answer.bytes.len() + answer.ahead + frame.head().length as usize;
        if answer.end.is_some() {
            frame.skip();
        } else if kind == Kind::Cancel {
            frame.skip();
            self.end(&mut answer, End::Lost);
        } else if kind == Kind::Length {
            let mut length = Vec::new();
            frame.take(&mut length);
            let length = u64::from_le_bytes(length.try_into().map_err(|_| Poisoned)?);
            match usize::try_from(length) {
                Ok(length) if length <= ANSWER_BYTES_MAX => {
                    answer.bytes.reserve_exact(length);
                    answer.length = Some(length);
                }
                _ => self.end(&mut answer, End::TooLong),
            }
        } else {
            answer.is_streamed |= kind == Kind::Part && answer.length.is_none();
            if all > answer.bytes_max() {
                frame.skip();
                self.end(&mut answer, End::TooLong);
                return Ok(());
            }
            frame.take(&mut answer.bytes);
            if matches!(kind, Kind::Whole | Kind::Last) {
                self.end(&mut answer, End::Complete);
            } else if answer.is_streamed {
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    /// No more of it comes; whether it had not ended before.
    pub(super) fn lose(&self) -> bool {
        let mut answer = self.lock();
        let goes_on = answer.end.is_none();
        self.end(&mut answer, End::Lost);
        goes_on
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Ends an answer that has not ended, and wakes who waits.
    fn end(&self, answer: &mut Answer, end: End) {
        answer.end.get_or_insert(end);
        self.changed.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// Whether there is something to hand out.
    pub(super) const fn is_ready(&self) -> bool {
        self.end.is_some() || self.is_streamed && !self.bytes.is_empty()
    }

    const fn bytes_max(&self) -> usize {
        match (self.is_streamed, self.length) {
            (true, _) => UNTAKEN_BYTES_MAX,
            (false, Some(length)) => length,
            (false, None) => ANSWER_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bield_ring::{Consumer, Producer, Spin};

    use super::*;

    /// A slot that gets parts of this size until they are so many bytes, while so many are being handed out.
    fn flooded(part: &[u8], bytes: usize, ahead: usize) -> Slot {
        let (_, [ring, _]) = bield_ring::create().unwrap();
        let mut producer = Producer::new(ring.clone(), Spin::fixed(Duration::ZERO));
        let mut consumer = Consumer::new(ring, Spin::fixed(Duration::ZERO));
        let slot = Slot::default();
        slot.lock().ahead = ahead;
        for _ in 0..bytes.div_ceil(part.len()) {
            producer.try_push(Kind::Part.number(), 0, part).unwrap();
            producer.publish();
            let frame = consumer.peek().unwrap().unwrap();
            slot.take(Kind::Part, frame).unwrap();
        }
        slot
    }

    #[test]
    fn a_program_that_does_not_wait_until_its_parts_are_taken_is_cut_off() {
        let part = vec![7; 100_000];
        let honest = flooded(&part, ANSWER_AHEAD_BYTES_MAX, 0);
        assert!(honest.lock().end.is_none() && honest.lock().is_ready());
        let hostile = flooded(&part, 2 * UNTAKEN_BYTES_MAX, 0);
        assert!(hostile.lock().end == Some(End::TooLong));
        assert!(hostile.lock().bytes.len() <= UNTAKEN_BYTES_MAX);
    }

    #[test]
    fn what_is_being_handed_out_counts_as_untaken() {
        let (part, most) = (vec![7; 100_000], UNTAKEN_BYTES_MAX);
        let honest = flooded(&part, part.len(), most - part.len());
        assert!(honest.lock().end.is_none());
        let hostile = flooded(&part, part.len(), most - part.len() + 1);
        assert!(hostile.lock().end == Some(End::TooLong));
    }

    #[test]
    fn a_program_that_says_what_only_a_host_says_breaks_the_rules() {
        for before in [None, Some(Kind::Last)] {
            let (_, [ring, _]) = bield_ring::create().unwrap();
            let mut producer = Producer::new(ring.clone(), Spin::fixed(Duration::ZERO));
            let mut consumer = Consumer::new(ring, Spin::fixed(Duration::ZERO));
            let slot = Slot::default();
            if let Some(kind) = before {
                producer.try_push(kind.number(), 0, b"all").unwrap();
                producer.publish();
                slot.take(kind, consumer.peek().unwrap().unwrap()).unwrap();
            }
            producer
                .try_push(Kind::More.number(), 0, &8u64.to_le_bytes())
                .unwrap();
            producer.publish();
            let frame = consumer.peek().unwrap().unwrap();
            assert!(slot.take(Kind::More, frame).is_err());
        }
    }
}
