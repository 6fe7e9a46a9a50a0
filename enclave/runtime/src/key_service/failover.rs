//! Which of the host's key services is asked, and which next.
//!
//! ```text
//! numbers  2 (worked last) ─ fails ─▶ 3 ─ fails ─▶ 4 ─ fails ─▶ pause ─▶ 5 ─▶ pause ─▶ 6 ─▶ pause ─▶ 7 ─ fails ─▶ why
//! three addresses:  the third          the first     the second           each once more
//! ```
//!
//! Always true: at most [`DIALS_MAX`] addresses are dialled for one question, none after its deadline; the one that
//! answered is asked first the next time; a no about the package is an answer. How many addresses the host has it alone
//! knows: it takes a number modulo their count, so consecutive numbers go round.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::leases::KeysError;

/// Most addresses dialled for one question: each of three twice, each of five once.
pub(super) const DIALS_MAX: u32 = 6;
/// Dials without a pause between them.
pub(super) const DIALS_AT_ONCE: u32 = 3;
/// Pause before each dial after those: an election takes about a second.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// Numbers go round after this many: divisible by every count of addresses up to six.
const NUMBERS: u8 = 240;

/// The number that worked last.
#[derive(Default)]
pub(super) struct Failover(AtomicU8);

impl Failover {
    /// Asks one after the other until one answers. `pause` waits, and says whether there is time left.
    ///
    /// # Errors
    /// What says most about why none answered.
    pub(super) fn ask<T>(
        &self,
        mut ask: impl FnMut(u8) -> Result<T, KeysError>,
        mut pause: impl FnMut(Duration) -> bool,
    ) -> Result<T, KeysError> {
        let mut number = self.0.load(Ordering::Relaxed);
        let mut worst = None;
        let mut cost = 0;
        for dials in 0..DIALS_MAX {
            let wait = if dials < DIALS_AT_ONCE {
                Duration::ZERO
            } else {
                PAUSE
            };
            if dials > 0 && !pause(wait) {
                break;
            }
            let error = match ask(number) {
                Err(error) if error.is_outage() => error,
                answer => {
                    self.0.store(number, Ordering::Relaxed);
                    return answer;
                }
            };
            number = (number + 1) % NUMBERS;
            // Evidence was exchanged for nothing: dear for both, and not likely to change within a second.
            cost += if weight(&error) > 1 { 2 } else { 1 };
            let weightier = |kept: &KeysError| weight(&error) > weight(kept);
            if worst.as_ref().is_none_or(weightier) {
                worst = Some(error);
            }
            if cost >= DIALS_MAX {
                break;
            }
        }
        Err(worst.unwrap_or(KeysError::Contradiction("nothing")))
    }
}

/// How much an error says about why nobody answers.
const fn weight(error: &KeysError) -> u32 {
    match error {
        KeysError::NotFresh(_) => 3,
        KeysError::NotAccepted { .. } => 2,
        KeysError::NotServing(_) => 1,
        _ => 0,
    }
}

const _: () = assert!(NUMBERS.is_multiple_of(60) && DIALS_AT_ONCE <= DIALS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> KeysError {
        KeysError::Unreachable {
            why: "test".to_owned(),
        }
    }

    fn not_leader() -> KeysError {
        KeysError::NotServing("not-leader")
    }

    /// Which numbers are asked when each answers so, and what comes of it.
    fn asked(
        failover: &Failover,
        answer: impl Fn(u8) -> Result<u8, KeysError>,
    ) -> (Vec<u8>, Result<u8, KeysError>) {
        let mut asked = Vec::new();
        let outcome = failover.ask(
            |number| {
                asked.push(number);
                answer(number)
            },
            |_| true,
        );
        (asked, outcome)
    }

    #[test]
    fn the_next_address_is_asked_and_the_one_that_answered_stays_first() {
        let failover = Failover::default();
        let second = |number| match number {
            0 => Err(unreachable()),
            1 => Err(not_leader()),
            other => Ok(other),
        };
        assert_eq!(asked(&failover, second), (vec![0, 1, 2], Ok(2)));
        assert_eq!(asked(&failover, second), (vec![2], Ok(2)));
        assert_eq!(
            asked(&failover, |n| if n < 4 { Err(not_leader()) } else { Ok(n) }),
            (vec![2, 3, 4], Ok(4))
        );
    }

    #[test]
    fn a_no_about_the_package_is_an_answer() {
        let failover = Failover::default();
        let refused = asked(&failover, |_| Err(KeysError::NotGranted));
        assert_eq!(refused, (vec![0], Err(KeysError::NotGranted)));
    }

    #[test]
    fn three_addresses_are_dialled_twice_each_and_no_more() {
        let failover = Failover::default();
        let (numbers, outcome) = asked(&failover, |_| Err(unreachable()));
        for address in 0..3 {
            let dials = numbers.iter().filter(|number| *number % 3 == address);
            assert_eq!(dials.count(), 2);
        }
        assert_eq!(outcome, Err(unreachable()));
    }

    #[test]
    fn numbers_go_round_evenly_for_every_count_of_addresses() {
        let failover = Failover(AtomicU8::new(NUMBERS - 1));
        let (numbers, _) = asked(&failover, |_| Err(unreachable()));
        for count in 1..=6 {
            let addresses: Vec<_> = numbers.iter().map(|number| number % count).collect();
            let consecutive = addresses
                .windows(2)
                .all(|pair| pair[1] == (pair[0] + 1) % count);
            assert!(consecutive, "{addresses:?}");
        }
    }

    #[test]
    fn pauses_begin_after_the_first_round_and_the_deadline_ends_all() {
        let failover = Failover::default();
        let mut pauses = Vec::new();
        let _ = failover.ask::<()>(
            |_| Err(unreachable()),
            |wait| {
                pauses.push(wait);
                true
            },
        );
        assert_eq!(pauses[..2], [Duration::ZERO; 2]);
        assert!(pauses[2..].iter().all(|wait| *wait == PAUSE));
        let mut dials = 0;
        let outcome = failover.ask::<()>(
            |_| {
                dials += 1;
                Err(not_leader())
            },
            |_| false,
        );
        assert_eq!((dials, outcome), (1, Err(not_leader())));
    }

    #[test]
    fn the_error_that_says_most_is_told_and_evidence_is_not_exchanged_six_times() {
        let failover = Failover::default();
        let forked = KeysError::NotFresh(crate::key_service::NotFresh::Forked);
        let (numbers, outcome) = asked(&failover, |number| match number {
            1 => Err(forked.clone()),
            _ => Err(unreachable()),
        });
        assert_eq!((numbers.len(), outcome), (5, Err(forked)));
        let other = KeysError::NotAccepted {
            why: "test".to_owned(),
        };
        let (numbers, outcome) = asked(&failover, |_| Err(other.clone()));
        assert_eq!((numbers.len(), outcome), (3, Err(other)));
    }
}
