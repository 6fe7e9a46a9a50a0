//! Requests that wait for others, and those for which nobody waits.

use std::thread;

use super::*;

#[test]
fn who_waited_too_long_for_a_turn_is_refused_and_the_next_request_works() {
    let (stage, mut runtime) = stage();
    runtime.queue_wait = Duration::from_millis(5);
    start_of(&runtime, stage.cast.request(stage.package, 1));
    let user = stage.cast.user.principal();
    let held = runtime.turns.take(user, Duration::ZERO).unwrap();
    let refusal = refused(&runtime, stage.cast.request(stage.package, 2));
    assert_eq!(
        (refusal.code.as_str(), refusal.retry),
        ("queue-full", Retry::Anew)
    );
    assert!(refusal.message.contains("5 ms"), "{refusal}");
    drop(held);
    start_of(&runtime, stage.cast.request(stage.package, 3));
}

#[test]
fn the_wait_for_others_is_told() {
    let (stage, runtime) = stage();
    start_of(&runtime, stage.cast.request(stage.package, 1));
    let user = stage.cast.user.principal();
    let held = runtime.turns.take(user, Duration::ZERO).unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            let (sealed, _) = stage.cast.request(stage.package, 2);
            runtime.answer(&sealed, &|| false)
        });
        while runtime.turns.waiting() == 0 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20));
        drop(held);
        let Reply::Sealed(told, _) = call.join().unwrap() else {
            panic!("unsealed");
        };
        assert!(told.queue_us >= 20_000, "{told:?}");
        assert!(told.total_us >= told.queue_us + told.run_us);
    });
}

#[test]
fn what_nobody_waits_for_is_not_begun() {
    let (stage, runtime) = stage();
    let (sealed, opener) = stage.cast.request(stage.package, 1);
    let Reply::Sealed(told, answer) = runtime.answer(&sealed, &|| true) else {
        panic!("unsealed");
    };
    assert_eq!(told.run_us, 0);
    assert_eq!(
        runtime.models.counts().resident,
        0,
        "nothing was opened for it"
    );
    let reply = inference::Reply::decode(&opener.open(&answer).unwrap()).unwrap();
    assert!(matches!(reply, inference::Reply::Refused(refusal) if refusal.code == "cancelled"));
}

#[test]
fn who_went_away_in_the_queue_is_not_run_and_passes_the_turn_on() {
    let (stage, runtime) = stage();
    start_of(&runtime, stage.cast.request(stage.package, 1));
    let user = stage.cast.user.principal();
    let held = runtime.turns.take(user, Duration::ZERO).unwrap();
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let (runtime, stage, gone) = (&runtime, &stage, &gone);
        let call = scope.spawn(move || {
            let (sealed, _) = stage.cast.request(stage.package, 2);
            runtime.answer(&sealed, &|| gone.load(Ordering::SeqCst))
        });
        while runtime.turns.waiting() == 0 {
            thread::yield_now();
        }
        gone.store(true, Ordering::SeqCst);
        drop(held);
        let Reply::Sealed(told, _) = call.join().unwrap() else {
            panic!("unsealed");
        };
        assert_eq!(told.run_us, 0);
    });
    start_of(&runtime, stage.cast.request(stage.package, 3));
}

#[test]
fn a_model_waits_for_room_and_is_not_refused_while_others_finish() {
    let (stage, runtime) = stage();
    start_of(&runtime, stage.cast.request(stage.package, 1));
    // A load of everything there is, under way.
    runtime.models.forget_all();
    let all = runtime
        .models
        .reserve(MIB, 64 * MIB, Duration::ZERO)
        .unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| start_of(&runtime, stage.cast.request(stage.package, 2)));
        thread::sleep(Duration::from_millis(20));
        assert!(!call.is_finished());
        drop(all);
        assert_eq!(call.join().unwrap(), StartKind::WarmKey);
    });
}
