//! What needs a look at the engine's own threads.

use std::sync::mpsc::channel;
use std::thread;

use super::*;

#[test]
fn a_run_apart_waits_for_no_thread_of_the_engine() {
    let rten = Rten::new(1);
    let model = rten.load(bield_fixtures::tiny_model(), ModelFormat::Onnx);
    let model = model.unwrap();
    let (busy, is_busy) = channel();
    let (release, released) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            rten.pool.run(move || {
                busy.send(()).unwrap();
                let _ = released.recv();
            });
        });
        is_busy.recv().unwrap();
        let input = Tensor::from_f32("input", &[1, 4], &[0.5; 4]).unwrap();
        assert!(model.run_apart(&[input], &[]).is_ok());
        drop(release);
    });
}
