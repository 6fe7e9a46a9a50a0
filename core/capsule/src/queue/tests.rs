//! The queue under several threads: nothing lost, nothing twice, nothing out of order.

use std::thread;

use super::*;

fn small() -> Queue {
    Queue::new(QueueLimits {
        bytes: 4096,
        entries: 100,
    })
}

/// The payloads of plain entries in a batch.
fn payloads(batch: &Batch) -> Vec<Vec<u8>> {
    let mut start = 0;
    let ends = batch.ends().as_chunks::<4>().0;
    ends.iter()
        .map(|end| {
            let end = u32::from_be_bytes(*end) as usize;
            let payload = batch.entries()[start + 1..end].to_vec();
            start = end;
            payload
        })
        .collect()
}

#[test]
fn every_entry_of_many_producers_is_taken_once_and_acknowledged_in_order() {
    const PRODUCERS: u64 = 4;
    const ENTRIES: u64 = 20_000;
    let queue = small();
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut tickets: Vec<Vec<Ticket>> = Vec::new();
    thread::scope(|scope| {
        let queue = &queue;
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                scope.spawn(move || {
                    let mut tickets = Vec::new();
                    for n in 0..ENTRIES {
                        let payload = [producer.to_be_bytes(), n.to_be_bytes()].concat();
                        // Every way to push, and every way to be told to wait.
                        let ticket = match n % 3 {
                            0 => queue.push_wait(&payload),
                            1 => {
                                let mut batch = Batch::new();
                                batch.push(&payload).unwrap();
                                queue.push_batch_wait(&batch)
                            }
                            _ => loop {
                                match queue.push_many(&[&payload]) {
                                    Err(QueueError::Full) => thread::yield_now(),
                                    other => break other,
                                }
                            },
                        }
                        .unwrap();
                        if n % 1000 == 0 {
                            queue.wait(ticket, 1).unwrap();
                            assert!(queue.state(1) >= ticket);
                        }
                        tickets.push(ticket);
                    }
                    queue.wait(*tickets.last().unwrap(), 1).unwrap();
                    tickets
                })
            })
            .collect();
        let signer = scope.spawn(move || {
            let mut batch = Batch::new();
            let mut taken = Vec::new();
            let mut last = Ticket::default();
            while let Some(tickets) = queue.take(&mut batch) {
                assert_eq!(tickets.first.position(), last.position() + 1);
                assert_eq!(
                    tickets.last.position() - last.position(),
                    batch.len() as u64
                );
                assert!(batch.len() <= 100 && batch.bytes() <= 4096);
                last = tickets.last;
                for payload in payloads(&batch) {
                    let (producer, n) = payload.split_at(8);
                    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
                    taken.push((number(producer), number(n)));
                }
                queue.reached(last, 1);
            }
            taken
        });
        tickets = producers.into_iter().map(|p| p.join().unwrap()).collect();
        queue.close();
        taken = signer.join().unwrap();
    });
    assert_eq!(taken.len() as u64, PRODUCERS * ENTRIES);
    // Each ticket names exactly the place of its entry, each producer's in its own order.
    for (producer, tickets) in tickets.iter().enumerate() {
        assert!(tickets.is_sorted_by(|a, b| a < b));
        for (n, ticket) in tickets.iter().enumerate() {
            let place = ticket.position() as usize - 1;
            assert_eq!(taken[place], (producer as u64, n as u64));
        }
    }
    assert_eq!(queue.state(1), queue.state(0));
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let queue = small();
    for _ in 0..100 {
        queue.push(b"x").unwrap();
    }
    assert_eq!(queue.push(b"x"), Err(QueueError::Full));
    let mut batch = Batch::new();
    let tickets = queue.try_take(&mut batch).unwrap();
    assert_eq!(
        (tickets.first, tickets.last),
        (Ticket::new(1), Ticket::new(100))
    );
    assert_eq!(queue.push(&[0; 4000]), Ok(Ticket::new(101)));
    assert_eq!(queue.push(&[0; 100]), Err(QueueError::Full));
    assert_eq!(
        queue.push_many(&[&[0; 30][..], &[0; 70]]),
        Err(QueueError::Full)
    );
    assert_eq!(
        queue.try_take(&mut batch).map(|t| t.last),
        Some(Ticket::new(101))
    );
    assert_eq!(queue.try_take(&mut batch), None);
}

#[test]
fn a_long_entry_is_taken_by_an_empty_queue_and_a_longer_one_by_none() {
    let queue = small();
    let longest = vec![0; crate::PAYLOAD_BYTES_MAX];
    queue.push(b"x").unwrap();
    assert_eq!(queue.push(&longest), Err(QueueError::Full));
    queue.try_take(&mut Batch::new()).unwrap();
    assert_eq!(queue.push(&longest), Ok(Ticket::new(2)));
    queue.try_take(&mut Batch::new()).unwrap();
    let too_long = |bytes, entries| Err(QueueError::TooLong { bytes, entries });
    let longer = vec![0; longest.len() + 1];
    assert_eq!(queue.push(&longer), too_long(longer.len(), 1));
    let half = &longest[..longest.len() / 2];
    let group = [half, half, half];
    assert_eq!(queue.push_many(&group), too_long(half.len() * 3, 3));
    assert_eq!(queue.push(b"y"), Ok(Ticket::new(3)));
    let mut batch = Batch::new();
    queue.try_take(&mut batch).unwrap();
    assert_eq!(payloads(&batch), [b"y"], "nothing of the refused is left");
}

#[test]
fn a_level_brings_those_it_implies_and_no_other_and_never_goes_back() {
    let queue = small();
    for _ in 0..10 {
        queue.push(b"x").unwrap();
    }
    queue.reached(Ticket::new(10), 5);
    assert_eq!(queue.state(5), Ticket::new(0), "nothing was taken yet");
    queue.try_take(&mut Batch::new()).unwrap();
    queue.reached(Ticket::new(7), 4);
    queue.reached(Ticket::new(5), 4);
    queue.reached(Ticket::new(99), 1);
    let states: Vec<_> = (0..LEVELS).map(|l| queue.state(l).position()).collect();
    assert_eq!(
        states,
        [10, 10, 0, 0, 7, 0],
        "replicas say nothing of the local disk"
    );
    queue.reached(Ticket::new(6), 3);
    queue.reached(Ticket::new(4), 5);
    let states: Vec<_> = (0..LEVELS).map(|l| queue.state(l).position()).collect();
    assert_eq!(states, [10, 10, 6, 6, 7, 4]);
    assert_eq!(queue.wait(Ticket::new(6), 3), Ok(()));
    let span = Duration::from_millis(1);
    assert_eq!(queue.wait_at_most(Ticket::new(7), 4, span), Ok(true));
    assert_eq!(queue.wait_at_most(Ticket::new(8), 4, span), Ok(false));
}

#[test]
fn a_failure_reaches_waiters_sleeping_producers_and_later_pushes() {
    let queue = small();
    let failed = Err(QueueError::Failed {
        reason: "replica 2 lost its disk".into(),
    });
    let ticket = queue.push(&[0; 4000]).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.wait(ticket, 4));
        let producer = scope.spawn(|| queue.push_wait(&[0; 4000]).map(|_| ()));
        while {
            let state = queue.lock();
            state.waiters_asleep == 0 || state.producers_asleep == 0
        } {
            thread::yield_now();
        }
        queue.fail("replica 2 lost its disk");
        queue.fail("and another reason");
        assert_eq!(waiter.join().unwrap(), failed);
        assert_eq!(producer.join().unwrap(), failed);
    });
    assert_eq!(queue.push(b"x").map(|_| ()), failed);
    assert_eq!(queue.wait(ticket, 1), failed);
    assert_eq!(queue.wait(ticket, 0), Ok(()), "it had got that far");
    assert_eq!(queue.take(&mut Batch::new()), None);
}

#[test]
fn a_signer_that_panics_leaves_nobody_waiting() {
    let queue = small();
    let ticket = queue.push(b"x").unwrap();
    thread::scope(|scope| {
        let signer = scope.spawn(|| {
            let _guard = queue.guard();
            queue.take(&mut Batch::new()).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(matches!(
            queue.wait(ticket, 1),
            Err(QueueError::Failed { .. })
        ));
        assert!(signer.join().is_err());
    });
    let other = small();
    drop(other.guard());
    assert!(other.push(b"x").is_ok(), "an orderly end is no failure");
}

#[test]
fn a_payload_that_panics_leaves_tickets_and_entries_in_step() {
    struct Second(&'static [u8]);
    impl AsRef<[u8]> for Second {
        fn as_ref(&self) -> &[u8] {
            assert!(self.0 != b"b", "on purpose");
            self.0
        }
    }
    let queue = small();
    let pushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        queue.push_many(&[Second(b"a"), Second(b"b")])
    }));
    assert!(pushed.is_err());
    assert_eq!(queue.push(b"c"), Ok(Ticket::new(1)));
    let mut batch = Batch::new();
    let tickets = queue.take(&mut batch).unwrap();
    assert_eq!(
        (tickets.first, tickets.last),
        (Ticket::new(1), Ticket::new(1))
    );
    assert_eq!(payloads(&batch), [b"c"]);
}

#[test]
fn who_waits_for_what_cannot_come_any_more_is_told() {
    let queue = small();
    let sent = queue.push(b"x").unwrap();
    queue.take(&mut Batch::new()).unwrap();
    thread::scope(|scope| {
        let never_queued = scope.spawn(|| queue.wait(Ticket::new(2), 0));
        let never_replicated = scope.spawn(|| queue.wait(sent, 4));
        while queue.lock().waiters_asleep < 2 {
            thread::yield_now();
        }
        queue.close();
        assert_eq!(never_queued.join().unwrap(), Err(QueueError::Closed));
        // The last acknowledgement may still be on its way.
        queue.reached(sent, 1);
        assert_eq!(queue.wait(sent, 1), Ok(()));
        queue.end();
        assert_eq!(never_replicated.join().unwrap(), Err(QueueError::Ended));
    });
    assert_eq!(queue.wait(sent, 1), Ok(()), "it had got that far");
    let span = Duration::from_secs(60);
    assert_eq!(queue.wait_at_most(sent, 3, span), Err(QueueError::Ended));
}

#[test]
fn a_closed_queue_gives_out_what_it_has_and_takes_no_more() {
    let queue = small();
    queue.push(b"x").unwrap();
    queue.close();
    assert_eq!(queue.push(b"y"), Err(QueueError::Closed));
    assert_eq!(queue.push_wait(b"y"), Err(QueueError::Closed));
    let mut batch = Batch::new();
    let tickets = queue.take(&mut batch).unwrap();
    queue.reached(tickets.last, 2);
    assert_eq!(queue.wait(tickets.last, 2), Ok(()));
    assert_eq!(queue.take(&mut batch), None);
}

#[test]
fn a_held_queue_gives_nothing_until_let_go_half_full_pressed_asked_or_closed() {
    let queue = small();
    let mut batch = Batch::new();
    queue.hold(true);
    queue.push(b"first").unwrap();
    assert!(queue.try_take(&mut batch).is_none());
    queue.hold(false);
    assert!(queue.try_take(&mut batch).is_some());

    queue.hold(true);
    for _ in 0..49 {
        queue.push(b"x").unwrap();
    }
    assert!(queue.try_take(&mut batch).is_none());
    queue.push(b"the fiftieth of a hundred").unwrap();
    assert!(queue.try_take(&mut batch).is_some());

    queue.push(&[7; 1000]).unwrap();
    assert!(queue.try_take(&mut batch).is_none());
    assert_eq!(queue.push(&[7; 3500]), Err(QueueError::Full));
    assert!(queue.try_take(&mut batch).is_some());

    // Who asks for an entry that was taken before changes nothing.
    queue.push(b"first").unwrap();
    let first = queue.state(0);
    queue.ask(first);
    queue.push(b"second").unwrap();
    assert_eq!(queue.try_take(&mut batch).unwrap().last, queue.state(0));
    queue.push(b"third").unwrap();
    queue.ask(first);
    assert!(queue.try_take(&mut batch).is_none());
    queue.ask(queue.state(0));
    assert!(queue.try_take(&mut batch).is_some());

    queue.push(b"last").unwrap();
    assert!(queue.try_take(&mut batch).is_none());
    queue.close();
    assert!(queue.try_take(&mut batch).is_some());
    assert!(queue.take(&mut batch).is_none());
}

#[test]
fn a_signer_that_sleeps_on_a_held_queue_wakes_when_it_is_let_go_asked_or_a_producer_needs_room() {
    let queue = small();
    thread::scope(|scope| {
        let queue = &queue;
        let signer = scope.spawn(move || {
            let mut batch = Batch::new();
            let mut lengths = Vec::new();
            while let Some(tickets) = queue.take(&mut batch) {
                lengths.push(batch.len());
                queue.reached(tickets.last, 1);
            }
            lengths
        });
        queue.hold(true);
        queue.push(b"a").unwrap();
        let ticket = queue.push(b"b").unwrap();
        let span = Duration::from_millis(20);
        assert!(!queue.wait_at_most(ticket, 1, span).unwrap());
        queue.hold(false);
        queue.wait(ticket, 1).unwrap();
        queue.hold(true);
        queue.push(&[7; 1000]).unwrap();
        let ticket = queue.push_wait(&[7; 3500]).unwrap();
        queue.hold(false);
        queue.wait(ticket, 1).unwrap();
        queue.hold(true);
        queue.push(b"a").unwrap();
        let ticket = queue.push(b"b").unwrap();
        assert!(!queue.wait_at_most(ticket, 1, span).unwrap());
        queue.ask(ticket);
        queue.wait(ticket, 1).unwrap();
        queue.close();
        assert_eq!(signer.join().unwrap(), [2, 1, 1, 2]);
    });
}
