//! Models that do nothing, of any size and cost.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use bield_engine::EngineError;
use bield_package::tensor::{Tensor, TensorSpec};

use super::*;
use crate::testing::package;

struct Nothing;

impl Model for Nothing {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }
    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }
    fn engine(&self) -> &'static str {
        "nothing"
    }
    fn run_timed(
        &self,
        _: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        Ok((Vec::new(), None))
    }
}

const MIB: u64 = 1 << 20;
const AT_ONCE: Duration = Duration::ZERO;

fn models(mib: u64) -> Arc<Models> {
    Arc::new(Models::new(mib * MIB))
}

fn load(models: &Arc<Models>, name: u8, mib: u64) -> Result<Lent, Refusal> {
    load_slowly(models, name, mib, Duration::from_millis(1))
}

fn load_slowly(models: &Arc<Models>, name: u8, mib: u64, took: Duration) -> Result<Lent, Refusal> {
    models.get(package(name), Duration::MAX, || {
        Ok(Loaded {
            space: models.reserve(mib * MIB, 2 * mib * MIB, AT_ONCE)?,
            model: Opened::new(Box::new(Nothing), 0),
            bytes: mib * MIB,
            took,
        })
    })
}

/// Which of these are resident.
fn resident(models: &Models, names: &[u8]) -> Vec<u8> {
    let here = models.names(99);
    let is_here = |name: &&u8| here.contains(&package(**name));
    names.iter().filter(is_here).copied().collect()
}

fn used(models: &Models) -> u64 {
    models.counts().used_bytes
}

#[test]
fn of_equals_the_least_recently_used_makes_room() {
    let models = models(4);
    load(&models, 1, 1).unwrap();
    load(&models, 2, 1).unwrap();
    // Two at rest and two for loading fill the budget; a third needs one gone.
    load(&models, 3, 1).unwrap();
    load(&models, 4, 1).unwrap();
    assert_eq!(
        models.names(9),
        [package(4), package(3), package(2)],
        "most recently used first"
    );
    assert_eq!(used(&models), 3 * MIB);
    assert_eq!(models.counts().evicted, 1);
    assert_eq!(models.counts().free_bytes, MIB);
}

#[test]
fn what_took_long_to_open_is_used_often_or_is_small_stays() {
    let slow = Duration::from_millis(10);
    let dearer = models(6);
    load_slowly(&dearer, 1, 2, slow).unwrap();
    load(&dearer, 2, 2).unwrap();
    load(&dearer, 3, 2).unwrap();
    assert_eq!(resident(&dearer, &[1, 2, 3]), [1, 3]);

    let oftener = models(6);
    for _ in 0..3 {
        load(&oftener, 1, 2).unwrap();
    }
    load(&oftener, 2, 2).unwrap();
    load(&oftener, 3, 2).unwrap();
    assert_eq!(resident(&oftener, &[1, 2, 3]), [1, 3]);

    let smaller = models(6);
    load(&smaller, 2, 3).unwrap();
    load(&smaller, 1, 1).unwrap();
    load(&smaller, 3, 2).unwrap();
    assert_eq!(resident(&smaller, &[1, 2, 3]), [1, 3]);
}

#[test]
fn what_nobody_uses_any_more_goes_however_dear_it_was() {
    let models = models(4);
    load_slowly(&models, 1, 1, Duration::from_millis(20)).unwrap();
    // Others come and go, and each makes the age rise by what it was worth.
    for name in 2..100 {
        load(&models, name, 1).unwrap();
        if resident(&models, &[1]).is_empty() {
            // The others are worth 1, 1, 2, 2, … as the age rises; at 20 it is the older one.
            assert_eq!(name, 2 * 20 + 2);
            return;
        }
    }
    panic!("it stayed for ever");
}

/// The reference keeps a plain list and computes each worth anew from what happened.
#[test]
fn evictions_are_those_of_the_published_rule() {
    struct Kept {
        name: u8,
        mib: u64,
        millis: u64,
        uses: u64,
        since: f64,
        last: u64,
    }
    let cache = models(24);
    let (mut kept, mut age) = (Vec::<Kept>::new(), 0.0_f64);
    let worth = |k: &Kept| k.since + (k.uses * k.millis * 1000) as f64 * 1024.0 / k.mib as f64;
    let mut random = 7_u64;
    for step in 0..3000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let name = (random >> 33) as u8 % 20;
        // Powers of two, so that both sides divide without a rest.
        let (mib, millis) = (1 << (name % 4), 1 << (name % 7));
        load_slowly(&cache, name, mib, Duration::from_millis(millis)).unwrap();
        if let Some(at) = kept.iter_mut().find(|k| k.name == name) {
            (at.uses, at.since, at.last) = (at.uses + 1, age, step);
        } else {
            while kept.iter().map(|k| k.mib).sum::<u64>() + 2 * mib > 24 {
                let least = kept
                    .iter()
                    .enumerate()
                    .min_by(|(_, a), (_, b)| {
                        worth(a).total_cmp(&worth(b)).then(a.last.cmp(&b.last))
                    })
                    .unwrap()
                    .0;
                age = age.max(worth(&kept.remove(least)));
            }
            kept.push(Kept {
                name,
                mib,
                millis,
                uses: 1,
                since: age,
                last: step,
            });
        }
        let expected: Vec<u8> = (0..20)
            .filter(|n| kept.iter().any(|k| k.name == *n))
            .collect();
        let all: Vec<u8> = (0..20).collect();
        assert_eq!(resident(&cache, &all), expected, "step {step}");
        assert_eq!(used(&cache), kept.iter().map(|k| k.mib).sum::<u64>() * MIB);
    }
    assert!(cache.counts().evicted > 500);
}

#[test]
fn a_model_at_work_stays_and_the_refusal_has_the_numbers() {
    let models = models(4);
    let at_work = load(&models, 1, 2).unwrap();
    let refused = load(&models, 2, 2).err().unwrap();
    assert_eq!(refused.code, "models-full");
    for number in ["2 MiB", "4 MiB", "2 of the 4 MiB"] {
        assert!(refused.message.contains(number), "{refused}");
    }
    assert_eq!(resident(&models, &[1]), [1]);
    drop(at_work);
    assert!(load(&models, 2, 2).is_ok());
    assert!(resident(&models, &[1]).is_empty());
}

#[test]
fn who_waits_for_room_gets_it_when_a_run_ends() {
    let models = models(4);
    let at_work = load(&models, 1, 2).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| models.reserve(2 * MIB, 4 * MIB, Duration::MAX).is_ok());
        drop(at_work);
        assert!(waits.join().unwrap());
    });
    assert_eq!(used(&models), 0);
}

#[test]
fn a_model_that_never_fits_evicts_nobody() {
    let models = models(4);
    load(&models, 1, 1).unwrap();
    let refused = load(&models, 2, 3).err().unwrap();
    assert_eq!(refused.code, "model-too-large");
    for number in ["3 MiB", "6 MiB", "in 4 MiB"] {
        assert!(refused.message.contains(number), "{refused}");
    }
    assert_eq!(resident(&models, &[1]), [1]);
}

#[test]
fn a_failed_load_gives_its_memory_back() {
    let models = models(4);
    for _ in 0..3 {
        let refused = models.get(package(1), Duration::MAX, || {
            let _space = models.reserve(2 * MIB, 4 * MIB, AT_ONCE)?;
            Err(Refusal::new("test", "no", Retry::Never))
        });
        assert_eq!(refused.err().unwrap().code, "test");
    }
    assert_eq!(used(&models), 0);
    assert!(load(&models, 1, 2).is_ok());
}

#[test]
fn a_model_lent_apart_is_counted_and_nobody_else_finds_it() {
    let models = models(4);
    let lent = models.lend_apart(Loaded {
        space: models.reserve(2 * MIB, 4 * MIB, AT_ONCE).unwrap(),
        model: Opened::new(Box::new(Nothing), 0),
        bytes: 2 * MIB,
        took: AT_ONCE,
    });
    assert_eq!(used(&models), 2 * MIB);
    assert!(models.resident(package(1)).is_none());
    assert_eq!(load(&models, 2, 2).err().unwrap().code, "models-full");
    drop(lent);
    assert_eq!(used(&models), 0);
}

#[test]
fn a_model_asked_for_by_many_is_loaded_once() {
    let models = models(4);
    let loads = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let model = models.get(package(1), Duration::MAX, || {
                    loads.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    Ok(Loaded {
                        space: models.reserve(MIB, 2 * MIB, AT_ONCE)?,
                        model: Opened::new(Box::new(Nothing), 0),
                        bytes: MIB,
                        took: AT_ONCE,
                    })
                });
                assert!(model.is_ok());
            });
        }
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn threads_do_not_pile_up_before_models_that_are_being_opened() {
    let models = Arc::new(Models::new(4 * MIB).with_places(1));
    drop(load(&models, 1, 1).unwrap());
    let while_opening = models.get(package(2), Duration::MAX, || {
        let refused = load(&models, 3, 1).err().unwrap();
        assert_eq!(
            (refused.code.as_str(), refused.retry),
            ("model-opening", Retry::Anew)
        );
        assert!(
            models.resident(package(1)).is_some(),
            "what is open goes on"
        );
        Err(refused)
    });
    assert!(while_opening.is_err());
    assert!(load(&models, 3, 1).is_ok());
}
