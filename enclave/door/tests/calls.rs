//! Calls through the rings, against a host that behaves, goes away, sends too much, and lies.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bield_door::{Call, Caller, Calls, Door, DoorError, Inside, Limits, Stream, Unread, Visit};
use bield_protocol::call::ANSWER_AHEAD_BYTES_MAX;
use bield_ring::{
    Consumer, End, Kind, Memory as _, Producer, RING_BYTES, SendError, Sender, Shared, Spin,
};
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

const LIMITS: Limits = Limits {
    request_bytes_max: 3 << 20,
    bytes_max: 4 << 20,
};
const WAIT: Duration = Duration::from_secs(30);

struct Host {
    visit: UnixStream,
    requests: Sender<Shared>,
    answers: Consumer<Shared>,
}

/// A visit for calls with these files.
fn visit_with(files: &[BorrowedFd<'_>]) -> (UnixStream, Stream) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let door = Door::new(UnixListener::bind(&path).unwrap());
    let visit = UnixStream::connect(&path).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    }
    let byte = [Visit::Calls.byte()];
    let bytes = [IoSlice::new(&byte)];
    rustix::net::sendmsg(&visit, &bytes, &mut control, SendFlags::empty()).unwrap();
    let (kind, stream) = door.accept().unwrap();
    assert!(kind == Visit::Calls);
    (visit, stream)
}

fn line() -> (Host, Calls) {
    line_beside(&Inside::default())
}

/// A line whose requests count among these.
fn line_beside(inside: &Inside) -> (Host, Calls) {
    let (file, [to_program, from_program]) = bield_ring::create().unwrap();
    let (visit, stream) = visit_with(&[file.as_fd()]);
    let host = Host {
        visit,
        requests: Sender::new(Producer::new(to_program, Spin::measured())),
        answers: Consumer::new(from_program, Spin::measured()),
    };
    (host, Calls::open(stream, LIMITS, inside).unwrap())
}

impl Host {
    fn send(&self, id: u64, bytes: &[u8]) {
        let deadline = Instant::now() + WAIT;
        self.requests.send(id, bytes, deadline, || false).unwrap();
    }

    /// The next frame of an answer.
    fn hear(&mut self) -> (Kind, u64, Vec<u8>) {
        let deadline = Instant::now() + WAIT;
        while !self.answers.wait_until(deadline).unwrap() {
            assert!(Instant::now() < deadline, "no answer");
        }
        let frame = self.answers.peek().unwrap().unwrap();
        let (head, mut bytes) = (frame.head(), Vec::new());
        frame.take(&mut bytes);
        (Kind::from_number(head.kind).unwrap(), head.id, bytes)
    }

    /// An answer of any length to this call, when no other is on its way.
    fn answer(&mut self, id: u64) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let (kind, of, bytes) = self.hear();
            assert_eq!(of, id);
            match kind {
                Kind::Length => continue,
                Kind::Cancel => panic!("no answer"),
                _ => answer.extend(bytes),
            }
            if matches!(kind, Kind::Whole | Kind::Last) {
                return answer;
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn requests_and_answers_of_any_length_come_through() {
    let (mut host, mut calls) = line();
    let program = thread::spawn(move || {
        loop {
            let Ok(Call { bytes, caller }) = calls.next_call() else {
                return;
            };
            let mut bytes = bytes.unwrap();
            bytes.reverse();
            caller.reply(&bytes).unwrap();
        }
    });
    for (id, length) in [0, 1, 48, 1000, 100_000, RING_BYTES, 3 << 20]
        .into_iter()
        .enumerate()
    {
        let mut bytes = pattern(length);
        host.send(id as u64, &bytes);
        bytes.reverse();
        assert!(host.answer(id as u64) == bytes, "{length} bytes");
    }
    drop(host);
    program.join().unwrap();
}

#[test]
fn calls_alternate_and_are_answered_in_any_order() {
    let (mut host, mut calls) = line();
    let (long, short) = (pattern(300_000), pattern(10));
    thread::scope(|scope| {
        let requests = &host.requests;
        let send =
            move |id, bytes: &[u8]| requests.send(id, bytes, Instant::now() + WAIT, || false);
        scope.spawn({
            let long = &long;
            move || send(1, long).unwrap()
        });
        scope.spawn({
            let long = &long;
            move || send(2, long).unwrap()
        });
        scope.spawn({
            let short = &short;
            move || send(3, short).unwrap()
        });
        let mut inside: Vec<Call> = (0..3).map(|_| calls.next_call().unwrap()).collect();
        inside.sort_by_key(|call| call.bytes.as_ref().unwrap().len());
        let lengths = inside.iter().map(|call| call.bytes.as_ref().unwrap().len());
        assert!(lengths.eq([10, 300_000, 300_000]));
        for call in inside {
            call.caller.reply(b"done").unwrap();
        }
    });
    let mut ids: Vec<u64> = (0..3).map(|_| host.hear().1).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn an_answer_can_be_sent_as_it_comes_to_be() {
    let (mut host, mut calls) = line();
    host.send(1, b"request");
    let mut caller = calls.next_call().unwrap().caller;
    caller.part(b"first ").unwrap();
    assert_eq!(host.hear(), (Kind::Part, 1, b"first ".to_vec()));
    caller.part(b"second ").unwrap();
    caller.reply(b"last").unwrap();
    assert_eq!(host.answer(1), b"second last");
}

/// Sends as much as may be sent before anything is taken.
fn fill(caller: &mut Caller) {
    for _ in 0..ANSWER_AHEAD_BYTES_MAX / (64 << 10) {
        assert!(caller.takes_more());
        caller.part(&[1; 64 << 10]).unwrap();
    }
}

#[test]
fn an_answer_in_parts_waits_until_they_are_taken() {
    let (mut host, mut calls) = line();
    host.send(1, b"request");
    let mut caller = calls.next_call().unwrap().caller;
    let told = Arc::new(AtomicBool::new(false));
    let is_told = Arc::clone(&told);
    let program = thread::spawn(move || {
        fill(&mut caller);
        caller.part(b"when the first is taken").unwrap();
        assert!(is_told.load(Ordering::Relaxed), "it did not wait");
        caller.reply(b"last").unwrap();
    });
    let reader = thread::spawn(move || calls.next_call().map(|_| ()));
    let mut heard = 0;
    while heard < ANSWER_AHEAD_BYTES_MAX {
        heard += host.hear().2.len();
    }
    told.store(true, Ordering::Relaxed);
    host.requests
        .send_more(1, 64 << 10, Instant::now() + WAIT, || false)
        .unwrap();
    assert_eq!(host.answer(1), b"when the first is takenlast");
    program.join().unwrap();
    drop(host);
    reader.join().unwrap().unwrap_err();
}

#[test]
fn whoever_waits_with_a_part_learns_that_the_caller_went_away() {
    for whole_host in [false, true] {
        let (mut host, mut calls) = line();
        host.send(1, b"request");
        let mut caller = calls.next_call().unwrap().caller;
        let reader = thread::spawn(move || calls.next_call().map(|_| ()));
        let program = thread::spawn(move || {
            fill(&mut caller);
            caller.part(b"for nobody")
        });
        let mut heard = 0;
        while heard < ANSWER_AHEAD_BYTES_MAX {
            heard += host.hear().2.len();
        }
        match whole_host {
            true => drop(host.visit),
            false => host.requests.cancel(1),
        }
        let sent = program.join().unwrap();
        assert!(matches!(sent, Err(DoorError::NotSent(SendError::GivenUp))));
        drop((host.requests, host.answers));
        if whole_host {
            reader.join().unwrap().unwrap_err();
        }
    }
}

#[test]
fn a_caller_that_is_dropped_says_that_there_is_no_answer() {
    let (mut host, mut calls) = line();
    host.send(7, b"request");
    drop(calls.next_call().unwrap());
    assert_eq!(host.hear(), (Kind::Cancel, 7, vec![]));
}

#[test]
fn a_cancelled_call_knows_and_is_not_answered() {
    let (mut host, mut calls) = line();
    host.send(1, b"one");
    host.send(2, b"two");
    host.requests.cancel(1);
    host.send(3, b"three");
    let [one, two, three] = [(); 3].map(|()| calls.next_call().unwrap().caller);
    assert!(one.is_cancelled() && !two.is_cancelled() && !three.is_cancelled());
    drop(one);
    two.reply(b"answer").unwrap();
    assert_eq!(host.hear().0, Kind::Cancel);
    assert_eq!(host.answer(2), b"answer");
}

#[test]
fn a_long_answer_stops_when_its_caller_goes_away() {
    let (host, mut calls) = line();
    host.send(1, b"request");
    let call = calls.next_call().unwrap();
    host.requests.cancel(1);
    host.send(2, b"so that the cancel is read");
    let _next = calls.next_call().unwrap();
    // Nobody reads the answer, which does not fit.
    let sent = call.caller.reply(&vec![0; 2 * RING_BYTES]);
    assert!(matches!(sent, Err(DoorError::NotSent(SendError::GivenUp))));
}

#[test]
fn requests_take_no_more_memory_than_they_may() {
    let (host, mut calls) = line();
    let done = AtomicBool::new(false);
    // What is handed out unread need not be sent to its end.
    let push = |id, length| {
        let over = || done.load(Ordering::Relaxed);
        let sent = host
            .requests
            .send(id, &vec![0; length], Instant::now() + WAIT, over);
        assert_ne!(sent, Err(SendError::TimedOut));
    };
    thread::scope(|scope| {
        scope.spawn(|| push(1, (3 << 20) + 1));
        let too_long = calls.next_call().unwrap();
        assert_eq!(
            too_long.bytes.unwrap_err(),
            Unread::TooLong { max: 3 << 20 }
        );
        scope.spawn(|| push(2, 3 << 20));
        let inside = calls.next_call().unwrap();
        assert_eq!(inside.bytes.as_ref().unwrap().len(), 3 << 20);
        scope.spawn(|| push(3, 8));
        let short = calls.next_call().unwrap();
        assert_eq!(short.bytes.unwrap(), [0; 8]);
        scope.spawn(|| push(4, 3 << 20));
        let no_room = calls.next_call().unwrap();
        assert_eq!(no_room.bytes.unwrap_err(), Unread::NoRoom);
        drop(inside);
        scope.spawn(|| push(5, 3 << 20));
        let again = calls.next_call().unwrap();
        assert_eq!(again.bytes.unwrap().len(), 3 << 20);
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_came_through_a_line_that_is_gone_counts_until_it_is_dropped() {
    let inside = Inside::default();
    let (host, mut calls) = line_beside(&inside);
    let (next_host, mut next_calls) = line_beside(&inside);
    let first = thread::scope(|scope| {
        scope.spawn(|| host.send(1, &vec![0; 3 << 20]));
        calls.next_call().unwrap()
    });
    assert!(first.bytes.is_ok());
    drop((host, calls));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = &next_host.requests;
        let given_up = || over.load(Ordering::Relaxed);
        scope.spawn(move || sender.send(1, &vec![0; 3 << 20], Instant::now() + WAIT, given_up));
        let refused = next_calls.next_call().unwrap();
        assert_eq!(refused.bytes.unwrap_err(), Unread::NoRoom);
        over.store(true, Ordering::Relaxed);
    });
    let (last_host, mut last_calls) = line_beside(&inside);
    drop(first);
    thread::scope(|scope| {
        scope.spawn(|| last_host.send(1, &vec![0; 3 << 20]));
        assert!(last_calls.next_call().unwrap().bytes.is_ok());
    });
}

#[test]
fn a_host_that_lies_about_what_it_read_ends_the_line() {
    let (_, [to_program, from_program]) = bield_ring::create().unwrap();
    let mut requests = Producer::new(to_program.clone(), Spin::measured());
    requests
        .try_push(Kind::Whole.number(), 1, b"request")
        .unwrap();
    requests.publish();
    let rings = [to_program, from_program.clone()];
    let mut calls = Calls::over(rings, LIMITS, &Inside::default());
    let caller = calls.try_next().unwrap().unwrap().caller;
    // Where no frame ends.
    from_program.publish(End::Consumer, 1);
    let sent = caller.reply(&vec![0; 2 * RING_BYTES]);
    assert!(matches!(
        sent,
        Err(DoorError::NotSent(SendError::Poisoned(_)))
    ));
    assert!(matches!(calls.next_call(), Err(DoorError::Poisoned(_))));
}

#[test]
fn a_request_that_was_given_up_is_forgotten() {
    let (host, mut calls) = line();
    let sent = host
        .requests
        .send(1, &vec![0; 3 << 20], Instant::now(), || false);
    assert_eq!(sent, Err(SendError::TimedOut));
    host.requests.cancel(1);
    thread::scope(|scope| {
        scope.spawn(|| host.send(2, &pattern(3 << 20)));
        let next = calls.next_call().unwrap();
        assert!(next.bytes.unwrap() == pattern(3 << 20));
    });
}

#[test]
fn a_host_that_lies_poisons_its_own_line_only() {
    let lies: [&[(u32, u64, &[u8])]; 7] = [
        &[(9, 1, b"no kind")],
        &[(6, 1, b"no number")],
        &[(2, 1, b"no length")],
        &[(2, 1, &5u64.to_le_bytes()), (3, 1, b"longer")],
        &[(2, 1, &5u64.to_le_bytes()), (4, 1, b"less")],
        &[(1, 1, b"one"), (1, 1, b"the same number")],
        &[(2, 1, &5u64.to_le_bytes()), (1, 1, b"twice")],
    ];
    for lie in lies {
        let rings = bield_ring::create().unwrap().1;
        let mut producer = Producer::new(rings[0].clone(), Spin::measured());
        for (kind, id, payload) in lie {
            producer.try_push(*kind, *id, payload).unwrap();
        }
        producer.publish();
        let mut calls = Calls::over(rings, LIMITS, &Inside::default());
        let mut inside = Vec::new();
        let ended = loop {
            match calls.try_next() {
                Ok(call) => inside.push(call.expect("honest frames only")),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, DoorError::Poisoned(_)), "{lie:?}");
    }
}

#[test]
fn late_parts_of_what_was_cancelled_are_no_lie() {
    let rings = bield_ring::create().unwrap().1;
    let mut producer = Producer::new(rings[0].clone(), Spin::measured());
    for (kind, id) in [(3, 1), (4, 1), (5, 1), (5, 2)] {
        producer.try_push(kind, id, b"").unwrap();
    }
    producer.try_push(6, 3, &u64::MAX.to_le_bytes()).unwrap();
    producer.publish();
    let mut calls = Calls::over(rings, LIMITS, &Inside::default());
    assert!(calls.try_next().unwrap().is_none());
}

#[test]
fn a_visit_without_memory_or_with_other_memory_is_refused() {
    let other = rustix::fs::memfd_create(c"other", MemfdFlags::ALLOW_SEALING).unwrap();
    for files in [&[][..], &[other.as_fd()]] {
        let (_visit, stream) = visit_with(files);
        let opened = Calls::open(stream, LIMITS, &Inside::default());
        assert!(matches!(opened, Err(DoorError::NoRings(_))));
    }
}

#[test]
fn a_host_that_goes_away_ends_the_line() {
    let (host, mut calls) = line();
    host.send(1, b"request");
    let inside = calls.next_call().unwrap();
    drop(host.visit);
    assert!(matches!(calls.next_call(), Err(DoorError::HostGone)));
    assert!(inside.caller.is_cancelled());
}
