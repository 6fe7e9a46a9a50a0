//! What went wrong in the system that this one follows (SeSeMI's released code), and the test that keeps it from here.
//!
//! | finding | test |
//! |---|---|
//! | F2 one failed or denied key fetch bricks a worker | [`f2_a_failed_or_denied_key_fetch_bricks_nobody`] |
//! | F3 a lost channel to the key service is never opened again | `key_service::tests::failing::f3_…` |
//! | F5 unparsable bytes stop the server | [`f5_unparsable_bytes_stop_nothing`], `program::tests::nonsense_costs_its_own_answer_only` |
//! | R1 one pair of keys is cached: alternating users refetch | [`r1_alternating_users_do_not_refetch`] |
//! | R2 waiting burns a core | [`r2_waiting_takes_no_processor_time`]; idle: `testing/end-to-end/tests/findings_runtime.rs` |
//! | R3, R4 copies of the model on load, and one for each thread | [`r3_r4_there_is_one_copy_of_a_model`] |
//! | R5 the previous user's tensors stay | `traces`: as the grant asks |

use std::fs;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Instant;

use bield_grant::UserSelector;

use super::*;
use crate::flights::Flights;

#[test]
fn f2_a_failed_or_denied_key_fetch_bricks_nobody() {
    let (mut stage, runtime) = stage();
    let lasts = stage.service.mind().lasts;
    for (id, failure) in (1..).zip([unreachable(), KeysError::NotGranted, unreachable()]) {
        let (good, _) = stage.cast.request(stage.package, id);
        stage.service.mind().fails = Some(failure);
        // More often than there are places for those who wait.
        for _ in 0..10 {
            turned_down(&runtime, &good);
        }
        stage.service.mind().fails = None;
        let (other, _) = stage.cast.request(package(id), 100 + id);
        runtime.answer(&other, &|| false);
        stage.pass(Duration::from_secs(5));
        start_of(&runtime, stage.cast.request(stage.package, 50 + id));
        stage.pass(lasts);
    }
}

#[test]
fn f5_unparsable_bytes_stop_nothing() {
    let (stage, runtime) = stage();
    let (good, _) = stage.cast.request(stage.package, 1);
    for at in 0..good.len().min(400) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        turned_down(&runtime, &bytes[..]);
        turned_down(&runtime, &good[..at]);
    }
    start_of(&runtime, stage.cast.request(stage.package, 2));
}

#[test]
fn r1_alternating_users_do_not_refetch() {
    let (stage, runtime) = stage();
    let users: Vec<_> = (90..94)
        .map(|seed| SigningKey::generate(&mut Seeded::new(seed)))
        .collect();
    let grants = users.iter().zip(1_u8..).map(|(user, number)| {
        stage.cast.granted(stage.package, |grant| {
            grant.id = [number; 16];
            grant.user = UserSelector::Principal(user.principal());
        })
    });
    stage.service.mind().grants = Some(grants.collect());
    let body = inference::Request {
        inputs: crate::testing::inputs(),
        outputs: Vec::new(),
    };
    let body = body.encode();
    let starts: Vec<_> = (0..20)
        .map(|id: u8| {
            let user = &users[usize::from(id) % users.len()];
            start_of(&runtime, stage.cast.seal(user, stage.package, id, &body))
        })
        .collect();
    assert_eq!(starts[0], StartKind::Cold);
    assert!(starts[1..].iter().all(|start| *start == StartKind::Hot));
    assert_eq!(stage.service.mind().fetches, 1);
}

/// Nanoseconds of processor time of this thread so far.
fn processor_time() -> u64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    told.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn r2_waiting_takes_no_processor_time() {
    let (stage, runtime) = stage();
    let user = stage.cast.user.principal();
    let turn = runtime.turns.take(user, Duration::ZERO).unwrap();
    let room = runtime
        .models
        .reserve(MIB, 64 * MIB, Duration::ZERO)
        .unwrap();
    let inside = runtime.tenancy.enter(user, false, Duration::ZERO).unwrap();
    let claimant = crate::testing::Cast::new().owner.principal();
    let flights = Flights::<u32>::new();
    let measured = |wait: &dyn Fn()| {
        let (started, before) = (Instant::now(), processor_time());
        wait();
        (
            processor_time() - before,
            started.elapsed().as_nanos() as u64,
        )
    };
    let pause = Duration::from_millis(300);
    let costs = thread::scope(|scope| {
        let leads = scope.spawn(|| {
            flights.join(stage.package, || {
                thread::sleep(pause);
                1
            })
        });
        let waits: [Box<dyn Fn() + Send>; 4] = [
            Box::new(|| drop(runtime.turns.take(user, Duration::MAX).unwrap())),
            Box::new(|| drop(runtime.models.reserve(MIB, 2 * MIB, Duration::MAX).unwrap())),
            Box::new(|| {
                drop(
                    runtime
                        .tenancy
                        .enter(claimant, true, Duration::MAX)
                        .unwrap(),
                )
            }),
            Box::new(|| assert_eq!(flights.join(stage.package, || 1), 1)),
        ];
        let waits = waits.map(|wait| scope.spawn(move || measured(&*wait)));
        thread::sleep(pause);
        drop((turn, room, inside));
        leads.join().unwrap();
        waits.map(|wait| wait.join().unwrap())
    });
    for (at, (burnt, waited)) in costs.into_iter().enumerate() {
        assert!(waited > 100_000_000 || at == 3, "wait {at} did not wait");
        assert!(
            burnt < waited.max(pause.as_nanos() as u64) / 20,
            "wait {at}: {burnt} of {waited} ns"
        );
    }
}

/// Counts what it loads.
struct Counting<'a>(&'a AtomicUsize, Rten);

impl Engine for Counting<'static> {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.load(bytes, format)
    }
}

#[test]
fn r3_r4_there_is_one_copy_of_a_model() {
    static LOADS: AtomicUsize = AtomicUsize::new(0);
    let stage = Stage::new(Shelf::stocked());
    let mut runtime = stage.runtime(Counting(&LOADS, Rten::new(1)), 64 * MIB);
    runtime.turns = Arc::new(Turns::new(8));
    // There before: only a few may wait for keys at once.
    assert!(runtime.leases.get(stage.package).is_ok());
    thread::scope(|scope| {
        for id in 0..8 {
            let (runtime, stage) = (&runtime, &stage);
            scope.spawn(move || {
                for round in 0..4 {
                    start_of(runtime, stage.cast.request(stage.package, 10 * round + id));
                }
            });
        }
    });
    assert_eq!(LOADS.load(Ordering::SeqCst), 1);
    let model = bield_fixtures::tiny_model().len() as u64;
    assert_eq!(runtime.models.counts().used_bytes, model);
}
