//! Askers that take their time: what they hold up, how long they have, what is counted meanwhile.

use super::*;
use crate::call::parts::{READ_BYTES_PER_SECOND_MIN, READ_WAIT, Reading};
use crate::turns::Turn;

/// Takes one part at a time; before it takes the next, somebody else is served.
struct Slow<'a> {
    reads: Reads,
    stage: &'a Stage,
    runtime: &'a Runtime,
    next: RefCell<u8>,
    comes_back: bool,
}

impl Asker for Slow<'_> {
    fn is_gone(&self) -> bool {
        false
    }

    fn takes_more(&self) -> bool {
        *self.next.borrow() == 0
    }

    fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
        let id = 100 + *self.next.borrow();
        start_of(
            self.runtime,
            self.stage.cast.request(self.stage.package, id),
        );
        self.comes_back.then_some(()).ok_or(Gone)
    }

    fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
        *self.next.borrow_mut() += 1;
        self.reads.part(bytes)
    }
}

#[test]
fn whoever_takes_its_time_holds_no_turn_and_may_give_up() {
    for comes_back in [true, false] {
        // The stage has one turn.
        let (stage, runtime, _tell) = scripted(&[Step::Give("a"), Step::Give("b")]);
        let (sealed, opener) = in_parts(&stage, 1);
        let (reads, parts) = Reads::all();
        let slow = Slow {
            reads,
            stage: &stage,
            runtime: &runtime,
            next: RefCell::new(0),
            comes_back,
        };
        let answer = runtime.answer_to(&sealed, &slow);
        let mut opening = Opening::new(opener);
        assert_eq!(opening.take_output(&parts.recv().unwrap()), output("a"));
        if comes_back {
            assert_eq!(opening.take_output(&parts.recv().unwrap()), output("b"));
        }
        match (opening.end(answer), comes_back) {
            (Item::End(_), true) => {}
            (Item::Refused(refusal), false) => {
                assert_eq!(refusal.code, "read-too-slowly");
                assert!(!refusal.message.contains("not begun"), "{refusal}");
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[test]
fn whoever_reads_one_large_output_slowly_holds_no_turn_between_its_chunks() {
    let (stage, runtime, _tell) = scripted(&[Step::GiveLarge]);
    let (sealed, opener) = in_parts(&stage, 1);
    let (reads, parts) = Reads::all();
    let slow = Slow {
        reads,
        stage: &stage,
        runtime: &runtime,
        next: RefCell::new(0),
        comes_back: true,
    };
    let answer = runtime.answer_to(&sealed, &slow);
    let served = *slow.next.borrow() - 1;
    drop(slow);
    let mut opening = Opening::new(opener);
    let chunks: Vec<_> = parts.iter().collect();
    assert_eq!((chunks.len(), served), (3, 2));
    assert!(opening.take(&chunks[0]).is_empty());
    assert!(opening.take(&chunks[1]).is_empty());
    assert_eq!(opening.take_output(&chunks[2]), large());
    assert!(matches!(opening.end(answer), Item::End(_)));
}

/// Has its turn taken by another while it reads, for good or for a moment.
struct Interrupted<'a> {
    reads: Reads,
    runtime: &'a Runtime,
    taken: RefCell<Option<Turn<'a>>>,
    for_good: bool,
}

impl Asker for Interrupted<'_> {
    fn is_gone(&self) -> bool {
        false
    }

    fn takes_more(&self) -> bool {
        false
    }

    fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
        let other = Principal::from_bytes([9; 32]);
        let mut taken = self.taken.borrow_mut();
        if taken.is_none() {
            *taken = self.runtime.turns.take(other, Duration::ZERO).ok();
        }
        if !self.for_good {
            *taken = None;
        }
        Ok(())
    }

    fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
        self.reads.part(bytes)
    }
}

/// Whether somebody else gets a turn at once.
fn is_free(turns: &Turns) -> bool {
    let other = Principal::from_bytes([8; 32]);
    turns.take(other, Duration::ZERO).is_ok()
}

#[test]
fn an_engine_that_computes_on_does_so_with_a_turn_and_ends_without_one() {
    for for_good in [false, true] {
        let steps = [Step::Give("a"), Step::Wait, Step::Give("b")];
        let (stage, mut runtime, tell) = scripted(&steps);
        if for_good {
            runtime.queue_wait = Duration::from_millis(1);
        }
        let (sealed, opener) = named_in_parts(&stage, 1, &["a", "b"]);
        let (reads, parts) = Reads::all();
        let mut opening = Opening::new(opener);
        thread::scope(|scope| {
            let (runtime, sealed) = (&runtime, &sealed);
            let answering = scope.spawn(move || {
                let interrupted = Interrupted {
                    reads,
                    runtime,
                    taken: RefCell::new(None),
                    for_good,
                };
                runtime.answer_to(sealed, &interrupted)
            });
            assert_eq!(opening.take_output(&parts.recv().unwrap()), output("a"));
            if for_good {
                // It breaks off before its engine goes on.
                let answer = answering.join().unwrap();
                let Item::Refused(refusal) = opening.end(answer) else {
                    panic!("not refused")
                };
                assert_eq!(refusal.code, "queue-full");
                assert!(!refusal.message.contains("not begun"), "{refusal}");
                return;
            }
            // The engine waits for a word, with a turn that it took again.
            while is_free(&runtime.turns) {
                thread::yield_now();
            }
            tell.send(()).unwrap();
            assert_eq!(opening.take_output(&parts.recv().unwrap()), output("b"));
            assert!(matches!(
                opening.end(answering.join().unwrap()),
                Item::End(_)
            ));
        });
        assert!(is_free(&runtime.turns), "it came back");
    }
}

#[test]
fn outputs_that_are_computed_leave_without_a_turn() {
    let (stage, runtime) = stage();
    let (sealed, opener) = in_parts(&stage, 1);
    let (reads, parts) = Reads::all();
    let interrupted = Interrupted {
        reads,
        runtime: &runtime,
        taken: RefCell::new(None),
        for_good: true,
    };
    let answer = runtime.answer_to(&sealed, &interrupted);
    let mut opening = Opening::new(opener);
    opening.take_output(&parts.recv().unwrap());
    assert!(interrupted.taken.borrow().is_some(), "it was another's");
    assert!(matches!(opening.end(answer), Item::End(_)));
}

#[test]
fn a_slow_reader_keeps_room_for_its_outputs_only_and_without_room_nothing_is_computed() {
    let (stage, mut runtime) = stage();
    runtime.unsent = Unsent::new(OUTPUT_BYTES_MAX);
    let hold = |bytes| {
        let other = Principal::from_bytes([9; 32]);
        runtime.unsent.reserve(other, bytes)
    };
    let (sealed, opener) = in_parts(&stage, 1);
    let held = hold(1);
    let (reads, _parts) = Reads::most(0);
    let Answer::Whole(Reply::Sealed(told, answer)) = runtime.answer_to(&sealed, &reads) else {
        panic!("not whole")
    };
    let reply = inference::Reply::decode(&opener.open(&answer).unwrap()).unwrap();
    let inference::Reply::Refused(refusal) = reply else {
        panic!("not refused")
    };
    assert_eq!((refusal.code.as_str(), told.run_us), ("answers-unread", 0));
    start_of(&runtime, stage.cast.request(stage.package, 2));
    drop(held);

    /// Looks whether there is room for others while it reads.
    struct Looks<'a>(Reads, &'a dyn Fn() -> bool);

    impl Asker for Looks<'_> {
        fn is_gone(&self) -> bool {
            false
        }

        fn takes_more(&self) -> bool {
            false
        }

        fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
            (self.1)().then_some(()).ok_or(Gone)
        }

        fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
            self.0.part(bytes)
        }
    }
    // Three numbers.
    let all_but = |bytes| hold(OUTPUT_BYTES_MAX - bytes).is_some();
    let (sealed, opener) = in_parts(&stage, 3);
    let (reads, parts) = Reads::all();
    let looks = || !all_but(11) && all_but(12);
    let answer = runtime.answer_to(&sealed, &Looks(reads, &looks));
    let mut opening = Opening::new(opener);
    opening.take_output(&parts.recv().unwrap());
    assert!(matches!(opening.end(answer), Item::End(_)));
    assert!(all_but(0), "all is given back");
}

/// Waits for nothing; remembers how long it might have.
struct Patient {
    at_most: RefCell<Duration>,
    is_gone: bool,
}

impl Asker for Patient {
    fn is_gone(&self) -> bool {
        self.is_gone
    }

    fn takes_more(&self) -> bool {
        false
    }

    fn wait_until_taken(&self, at_most: Duration) -> Result<(), Gone> {
        *self.at_most.borrow_mut() = at_most;
        Err(Gone)
    }

    fn part(&self, _: &[u8]) -> Result<(), Gone> {
        Err(Gone)
    }
}

#[test]
fn readers_have_time_for_what_they_read_and_no_more() {
    let patient = Patient {
        at_most: RefCell::default(),
        is_gone: false,
    };
    let second = Duration::from_secs(1);
    let waits = |before, bytes| {
        let refusal = Reading(before).wait(&patient, bytes).unwrap_err();
        assert_eq!(refusal.code, "read-too-slowly");
        *patient.at_most.borrow()
    };
    assert_eq!(waits(Duration::ZERO, 0), READ_WAIT);
    assert_eq!(waits(READ_WAIT - second, 0), second);
    assert_eq!(waits(READ_WAIT + second, 0), Duration::ZERO);
    let bytes = 3 * READ_BYTES_PER_SECOND_MIN;
    assert_eq!(waits(READ_WAIT + second, bytes), 2 * second);
    // As promised in decision 0017.
    for (seconds, read) in [(60, 100_000), (240, 100_000)] {
        assert!(waits(Duration::from_secs(seconds), seconds as usize * read) > Duration::ZERO);
    }
    let gone = Patient {
        is_gone: true,
        ..patient
    };
    let refusal = Reading::default().wait(&gone, 0).unwrap_err();
    assert_eq!(refusal.code, "cancelled");
}

#[test]
fn only_computing_counts_as_run() {
    let steps = [Step::Give("a"), Step::Give("b")];
    let (stage, runtime, _tell) = scripted(&steps);
    let (sealed, _) = named_in_parts(&stage, 1, &["a", "b"]);
    let (reads, _parts) = Reads::all();

    /// Takes its time.
    struct Dawdles(Reads);

    const PAUSE: Duration = Duration::from_millis(300);

    impl Asker for Dawdles {
        fn is_gone(&self) -> bool {
            false
        }

        fn takes_more(&self) -> bool {
            false
        }

        fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
            thread::sleep(PAUSE);
            Ok(())
        }

        fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
            self.0.part(bytes)
        }
    }
    let began = Instant::now();
    runtime.answer_to(&sealed, &Dawdles(reads));
    let took = began.elapsed();
    let run = phase(&runtime, "run_us_total");
    assert!(run + 2 * PAUSE <= took, "{run:?} of {took:?}");
}

/// Microseconds that the host is told of.
fn phase(runtime: &Runtime, name: &str) -> Duration {
    let told = runtime
        .metrics
        .tell(&runtime.leases.counts(), &runtime.models.counts(), 0);
    let found = told.iter().find(|metric| metric.name == name);
    Duration::from_micros(found.unwrap().value)
}
