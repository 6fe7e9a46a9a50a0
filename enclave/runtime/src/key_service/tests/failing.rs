//! Key services that were set back, forked or exchanged, that do not serve, or that break off; and hosts that dawdle.

use super::*;

#[test]
fn a_state_that_was_set_back_or_forked_gets_no_question_and_is_counted() {
    let stage = Stage::expecting(code(2));
    stage.fetch(|request| stage.answer(&request)).unwrap();
    let newest = lock(&stage.log).size();
    let forked = PlayedLog::forked("bield/keys/1", 20, 2);
    for (log, why) in [
        (PlayedLog::new("bield/keys/1", 3), NotFresh::SetBack(3)),
        (forked, NotFresh::Forked),
        (PlayedLog::new("bield/keys/2", 50), NotFresh::OtherService),
    ] {
        *lock(&stage.log) = log;
        let before = stage.client.not_fresh.load(Ordering::Relaxed);
        let refused = stage.fetch(|request| match &request {
            Request::Freshness(_) => Reply::Freshness(lock(&stage.log).answer()),
            _ => panic!("asked"),
        });
        let refused = refused.err().unwrap();
        let said = refused.unsealed();
        assert_eq!(
            (said.code.as_str(), said.retry_after_ms),
            ("no-lease", None)
        );
        assert!(!said.message.contains("bield/keys"), "{said:?}");
        assert_eq!(refused, KeysError::NotFresh(why));
        assert!(stage.client.not_fresh.load(Ordering::Relaxed) > before);
    }
    *lock(&stage.log) = PlayedLog::new("bield/keys/1", newest);
    stage.fetch(|request| stage.answer(&request)).unwrap();
}

#[test]
fn a_service_that_cannot_continue_what_it_signed_says_so_and_is_refused() {
    let stage = Stage::expecting(code(2));
    stage.fetch(|request| stage.answer(&request)).unwrap();
    for (code, why) in [
        ("foreign-checkpoint", NotFresh::OtherService),
        ("forked", NotFresh::Forked),
        ("rolled-back", NotFresh::SetBackByItsWord),
    ] {
        let refused = stage.fetch(|_| refuses(code)).err();
        assert_eq!(refused, Some(KeysError::NotFresh(why)));
    }
    let refused = stage.fetch(|_| refuses("of another version")).err();
    assert!(
        refused.is_some_and(|error| error.is_outage()),
        "no package was named"
    );
}

#[test]
fn a_head_that_another_thread_learned_meanwhile_is_asked_for_again() {
    let stage = Stage::expecting(code(2));
    let presented = Mutex::new(Vec::new());
    let keys = stage.fetch(|request| {
        if let Request::Freshness(kept) = &request {
            let answer = stage.freshness(kept.as_deref());
            let size = |note: &String| note.lines().nth(1).unwrap().to_owned();
            lock(&presented).push(kept.as_ref().map(size));
            if kept.is_none() {
                // Before this answer arrives, another session brings a newer one.
                let newer = stage.freshness(None);
                let newer = Arc::new(newer.head_after(None).unwrap());
                *lock(&stage.client.known) = Some(newer);
            }
            return Reply::Freshness(answer);
        }
        stage.answer(&request)
    });
    assert!(keys.is_ok());
    assert_eq!(*lock(&presented), [None, Some("7".to_owned())]);
}

#[test]
fn the_next_address_is_dialled_when_one_is_silent_gone_or_no_leader() {
    let stage = Stage::expecting(code(2));
    let answers = |request: Request| stage.answer(&request);
    let (numbers, keys) = stage.fetch_through(|dial, pipe| match dial {
        0 => drop(pipe),
        1 => serve(pipe, stage.service(), |request| match request {
            Request::Lease(_) => refuses("not-leader"),
            other => stage.answer(&other),
        }),
        _ => serve(pipe, stage.service(), answers),
    });
    assert!(keys.is_ok());
    assert_eq!(numbers, [0, 1, 2]);
    let (numbers, keys) = stage.fetch_through(|_, pipe| serve(pipe, stage.service(), answers));
    assert!(keys.is_ok());
    assert_eq!(numbers, [2], "the one that worked is the first");
}

/// F3 of SeSeMI: after one failed send or read the channel was closed, kept, and never opened again.
#[test]
fn f3_a_pipe_that_breaks_costs_one_question_and_the_next_one_opens_another() {
    let stage = Stage::expecting(code(2));
    let (numbers, refused) = stage.fetch_through(|_, pipe| drop(pipe));
    let refused = refused.err().unwrap();
    assert!(
        matches!(refused, KeysError::Unreachable { .. }),
        "{refused}"
    );
    assert!(refused.unsealed().retry_after_ms.is_some());
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    // In the middle of a session too.
    let (_, refused) = stage.fetch_through(|_, pipe| {
        let cut = pipe.try_clone().unwrap();
        serve(pipe, stage.service(), |request| {
            if matches!(request, Request::Lease(_)) {
                cut.shutdown(Shutdown::Both).unwrap();
            }
            stage.answer(&request)
        });
    });
    assert!(matches!(refused, Err(KeysError::Unreachable { .. })));
    assert!(stage.fetch(|request| stage.answer(&request)).is_ok());
}

#[test]
fn a_host_that_lets_bytes_drip_holds_a_question_no_longer_than_its_deadline() {
    let stage = Stage::expecting(code(2));
    let mut host = stage.offer();
    thread::scope(|scope| {
        let until = Until::new(Instant::now() + Duration::from_millis(300));
        let pipe = Pipe::dial(&stage.offers, 0, &until).unwrap();
        scope.spawn(move || {
            while host.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let read = { pipe }.read_to_end(&mut Vec::new());
        assert!(read.is_err());
    });
}
