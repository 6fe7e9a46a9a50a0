//! Files and requests that are made to end the process instead of the run.

use std::thread;

use bield_engine::{Engine as _, Rten};
use bield_package::ModelFormat;
use bield_package::onnx::CHAIN_NODES_MAX;
use bield_package::tensor::Tensor;

/// What Rust gives a thread by default, as the runtime's threads have it.
const STACK_BYTES: usize = 2 << 20;

/// Debug builds of an engine use more stack than those that are shipped.
#[test]
fn the_longest_chain_that_is_let_in_fits_a_threads_stack() {
    for operator in ["Relu", "Add"] {
        for (format, file) in [
            (
                ModelFormat::Onnx,
                bield_fixtures::chain_model(operator, CHAIN_NODES_MAX),
            ),
            (
                ModelFormat::Rten,
                bield_fixtures::chain_rten(operator, CHAIN_NODES_MAX),
            ),
        ] {
            let ran = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let model = Rten::new(1).load(file, format).unwrap();
                    let x = Tensor::from_f32("x", &[2], &[0.0, 1.0]).unwrap();
                    model.run(&[x], &[]).unwrap()
                });
            assert_eq!(ran.unwrap().join().unwrap()[0].shape(), [2]);
        }
    }
}
