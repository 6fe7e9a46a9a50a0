//! What a request holds that others need: visits of the host, room in the replay guard, keys, turns, memory.

use std::io::{self, Read};
use std::sync::atomic::AtomicUsize;
use std::thread;

use bield_package::tensor::TensorSpec;

use super::*;
use crate::loading::PackageSource;

/// Serves a package and counts who reads it.
#[derive(Clone, Default)]
struct Visits {
    bytes: Vec<u8>,
    open: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

struct Visit(io::Cursor<Vec<u8>>, Arc<AtomicUsize>);

impl PackageSource for Visits {
    fn fetch(&self, _: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        let bytes = io::Cursor::new(self.bytes.clone());
        Ok(Some(Box::new(Visit(bytes, Arc::clone(&self.open)))))
    }
}

impl Read for Visit {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A host that is busy with other packages.
struct Busy;

impl PackageSource for Busy {
    fn fetch(&self, _: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

fn serve_from(runtime: &mut Runtime, source: impl PackageSource + 'static) {
    Arc::get_mut(&mut runtime.loader).unwrap().packages = Box::new(source);
}

#[test]
fn a_load_that_waits_for_memory_keeps_no_visit_of_the_host_open() {
    let (stage, mut runtime) = stage();
    runtime.queue_wait = Duration::from_secs(60);
    let visits = Visits {
        bytes: lock(&stage.shelf).bytes.clone(),
        ..Visits::default()
    };
    serve_from(&mut runtime, visits.clone());
    let all = runtime.models.reserve(MIB, 64 * MIB, Duration::ZERO);
    let all = all.unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| start_of(&runtime, stage.cast.request(stage.package, 1)));
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        while !call.is_finished() && (read(&visits.begun) == 0 || read(&visits.open) > 0) {
            thread::yield_now();
        }
        assert!(!call.is_finished());
        drop(all);
        assert_eq!(call.join().unwrap(), StartKind::Cold);
    });
    assert_eq!(visits.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_host_that_is_busy_with_other_packages_is_asked_again_and_no_operator_is_called() {
    let (stage, mut runtime) = stage();
    serve_from(&mut runtime, Busy);
    let refusal = refused(&runtime, stage.cast.request(stage.package, 1));
    assert_eq!(
        (refusal.code.as_str(), refusal.retry),
        ("packages-busy", Retry::Anew)
    );
}

#[test]
fn a_request_whose_sender_is_gone_takes_no_room_in_the_replay_guard() {
    let (stage, runtime) = stage();
    let (sealed, opener) = stage.cast.request(stage.package, 1);
    let Reply::Sealed(_, answer) = runtime.answer(&sealed, &|| true) else {
        panic!("unsealed");
    };
    let plain = opener.open(&answer).unwrap();
    let inference::Reply::Refused(_) = inference::Reply::decode(&plain).unwrap() else {
        panic!("answered");
    };
    assert!(lock(&runtime.guard).is_empty());
    // The same bytes, once somebody waits for them.
    assert!(matches!(
        runtime.answer(&sealed, &|| false),
        Reply::Sealed(..)
    ));
    assert_eq!(lock(&runtime.guard).len(), 1);
}

#[test]
fn a_model_that_is_opened_when_its_keys_were_just_refused_does_not_stay() {
    let (stage, runtime) = stage();
    let (sealed, _) = stage.cast.request(stage.package, 1);
    let asked = AtomicUsize::new(0);
    // Asked before admission, and again before there is a model.
    let refused_then = || {
        if asked.fetch_add(1, Ordering::SeqCst) == 1 {
            stage.service.mind().fails = Some(KeysError::NotGranted);
            let lasts = stage.service.mind().lasts;
            stage.clock.pass(lasts * 8 / 10);
            runtime.tend();
        }
        false
    };
    let reply = runtime.answer(&sealed, &refused_then);
    assert!(matches!(reply, Reply::Sealed(told, _) if told.run_us > 0));
    assert!(runtime.leases.cached(stage.package).is_none());
    assert!(runtime.models.names(9).is_empty());
    assert_eq!(runtime.models.counts().used_bytes, 0);
}

/// An engine whose models break while they run.
struct Breaking(Rten);

struct BreakingModel(Box<dyn Model>);

impl Engine for Breaking {
    fn name(&self) -> &'static str {
        "breaking"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        Ok(Box::new(BreakingModel(self.0.load(bytes, format)?)))
    }
}

impl Model for BreakingModel {
    fn inputs(&self) -> &[TensorSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.0.outputs()
    }

    fn engine(&self) -> &'static str {
        "breaking"
    }

    fn run_timed(
        &self,
        _: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        panic!("on purpose")
    }

    fn wipes(&self) -> bool {
        true
    }
}

#[test]
fn a_dedicated_request_that_fails_keeps_no_keys() {
    let stage = Stage::new(Shelf::stocked());
    let runtime = stage.runtime(Breaking(Rten::new(1)), 64 * MIB);
    let grant = stage.cast.grant(stage.package, Isolation::Dedicated);
    stage.service.mind().grants = Some(vec![grant]);
    let refusal = refused(&runtime, stage.cast.request(stage.package, 1));
    assert_eq!(refusal.code, "internal");
    assert!(runtime.leases.cached(stage.package).is_none());
    assert_eq!(runtime.models.counts().used_bytes, 0);
}

/// An engine that runs a model once at a time, when it may.
struct Single(Rten, Arc<Runs>);

#[derive(Default)]
struct Runs {
    begun: AtomicUsize,
    may: Mutex<()>,
}

struct SingleModel(Box<dyn Model>, Arc<Runs>);

impl Engine for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        let model = self.0.load(bytes, format)?;
        Ok(Box::new(SingleModel(model, Arc::clone(&self.1))))
    }
}

impl Model for SingleModel {
    fn inputs(&self) -> &[TensorSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.0.outputs()
    }

    fn engine(&self) -> &'static str {
        "single"
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.1.begun.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.1.may));
        self.0.run_timed(inputs, outputs)
    }

    fn runs_max(&self) -> usize {
        1
    }
}

#[test]
fn requests_for_a_model_that_runs_once_at_a_time_hold_one_turn() {
    let stage = Stage::new(Shelf::stocked());
    let runs = Arc::new(Runs::default());
    let mut runtime = stage.runtime(Single(Rten::new(1), Arc::clone(&runs)), 64 * MIB);
    runtime.turns = Arc::new(Turns::new(2));
    runtime.queue_wait = Duration::from_secs(60);
    start_of(&runtime, stage.cast.request(stage.package, 1));
    let model = runtime.models.resident(stage.package).unwrap();
    let before = runs.begun.load(Ordering::SeqCst);
    let held = lock(&runs.may);
    thread::scope(|scope| {
        let calls = [2, 3].map(|id| {
            let call = stage.cast.request(stage.package, id);
            scope.spawn(|| start_of(&runtime, call))
        });
        let begun = || runs.begun.load(Ordering::SeqCst) - before;
        while begun() + model.lane.waiting() < 2 {
            thread::yield_now();
        }
        let another = runtime
            .turns
            .take(stage.cast.owner.principal(), Duration::ZERO);
        let (begun, has_turn) = (begun(), another.is_ok());
        drop((another, held));
        for call in calls {
            assert_eq!(call.join().unwrap(), StartKind::Hot);
        }
        assert_eq!((begun, has_turn), (1, true));
    });
}

#[test]
fn a_model_that_takes_more_than_its_file_is_counted_with_it() {
    const NUMBERS: u64 = 1 << 20;
    for model in [
        bield_fixtures::half_model(NUMBERS),
        bield_fixtures::computed_model(NUMBERS),
    ] {
        let takes = 4 * NUMBERS;
        let stage = Stage::new(Shelf::packed(model, Vec::new()));
        let x = vec![0.5; NUMBERS as usize];
        let input = Tensor::from_f32("x", &[NUMBERS], &x).unwrap();
        let body = inference::Request {
            inputs: vec![input],
            outputs: Vec::new(),
        };
        let ask = |id| {
            let user = &stage.cast.user;
            stage.cast.seal(user, stage.package, id, &body.encode())
        };
        let roomy = stage.runtime(Rten::new(1), 64 * MIB);
        start_of(&roomy, ask(1));
        assert!(roomy.models.counts().used_bytes >= takes);
        let narrow = stage.runtime(Rten::new(1), takes - 1);
        let refusal = refused(&narrow, ask(2));
        assert_eq!(refusal.code, "model-too-large");
        assert_eq!(narrow.models.counts().used_bytes, 0);
    }
}
