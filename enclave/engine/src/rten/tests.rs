//! What needs a look at the engine's own threads.

use std::sync::mpsc::channel;
use std::thread;

use super::*;

/// Whether `run` answers while a run of another is under way on the engine's first threads.
fn answers_beside(rten: &Rten, run: impl Fn(&dyn Model, &[Tensor]) -> bool) -> bool {
    let model = rten.load(bield_fixtures::tiny_model(), ModelFormat::Onnx);
    let model = model.unwrap();
    let place = rten.pools.take();
    let (busy, is_busy) = channel();
    let (release, released) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            place.pool().run(move || {
                busy.send(()).unwrap();
                let _ = released.recv();
            });
        });
        is_busy.recv().unwrap();
        let input = Tensor::from_f32("input", &[1, 4], &[0.5; 4]).unwrap();
        let answers = run(&*model, &[input]);
        drop(release);
        answers
    })
}

#[test]
fn a_run_apart_waits_for_no_thread_of_the_engine() {
    let answers = |model: &dyn Model, inputs: &[Tensor]| model.run_apart(inputs, &[]).is_ok();
    assert!(answers_beside(&Rten::new(1), answers));
}

#[test]
fn as_many_runs_as_were_said_do_not_wait_for_each_other() {
    let answers = |model: &dyn Model, inputs: &[Tensor]| model.run(inputs, &[]).is_ok();
    assert!(answers_beside(&Rten::for_runs(1, 2), answers));
}
