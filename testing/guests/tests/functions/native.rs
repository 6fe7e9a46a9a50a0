//! Functions in C and from text, on buckets in memory.

use std::sync::Arc;
use std::thread;

use bield_function::{FailureKind, NnError, NnErrorKind};
use bield_guests::{Buckets, C, ECHO, component_of_text};
use bield_package::tensor::Tensor;

use crate::support::Guest;

const CALLER: &str = "3333333333333333333333333333333333333333333333333333333333333333";

#[test]
fn text_answers_with_what_it_was_asked() {
    let echo = Guest::of(&component_of_text(ECHO).unwrap());
    for length in [0, 1, 70_000, 1 << 20] {
        let body = vec![5; length];
        assert_eq!(
            echo.call(&Buckets::new(&[]), CALLER, "/any", &body)
                .unwrap(),
            body
        );
    }
}

#[test]
fn c_reads_writes_and_swaps_however_many_do_so_at_once() {
    let guest = Guest::of(C);
    let buckets = Buckets::new(&[("counters", true)]);
    let ask = |path: &str, body: &[u8]| guest.call(&buckets, CALLER, path, body);
    assert_eq!(ask("/caller", b"").unwrap(), CALLER.as_bytes());
    assert_eq!(ask("/echo", b"\0\xff").unwrap(), b"\0\xff");
    assert_eq!(ask("/keep", b"this").unwrap(), b"this");
    assert_eq!(
        ask("/get", b"nothing").unwrap_err().0,
        FailureKind::NotFound
    );

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    ask("/add", b"n").unwrap();
                    ask("/append", b"xyz").unwrap();
                }
            });
        }
    });
    assert_eq!(ask("/get", b"n").unwrap(), b"160");
    assert_eq!(ask("/get", b"log").unwrap(), b"xyz".repeat(160));

    let none = Buckets::new(&[]);
    let refused = guest.call(&none, CALLER, "/add", b"n").unwrap_err();
    assert_eq!(
        refused,
        (
            FailureKind::NotFound,
            "bield.toml declares no such bucket".to_owned()
        )
    );
    let eventual = Buckets::new(&[("counters", false)]);
    let refused = guest.call(&eventual, CALLER, "/append", b"n").unwrap_err();
    assert_eq!(refused.0, FailureKind::Failed);
    assert!(refused.1.starts_with("unsupported"));
}

#[test]
fn c_runs_a_model_on_the_numbers_it_is_given() {
    let run: Arc<bield_guests::Models> = Arc::new(|name, inputs| {
        assert_eq!(name, "model");
        let [input] = inputs.as_slice() else {
            panic!("{} inputs", inputs.len())
        };
        assert_eq!((input.name(), input.shape()), ("bytes", &[1, 3][..]));
        let halves: Vec<f32> = input
            .to_i32()
            .unwrap()
            .iter()
            .map(|number| *number as f32 / 2.0)
            .collect();
        Tensor::from_f32("scores", &[1, 3], &halves)
            .map(|tensor| vec![tensor])
            .map_err(|error| NnError::new(NnErrorKind::Runtime, error.to_string()))
    });
    let guest = Guest::of(C);
    let buckets = Buckets::new(&[]).with_model("model", run);
    let numbers = [1_i32, -7, 1000].map(i32::to_le_bytes).concat();
    let answer = guest.call(&buckets, CALLER, "/run", &numbers).unwrap();
    assert_eq!(
        answer,
        [0.5_f32, -3.5, 500.0].map(f32::to_le_bytes).concat()
    );

    let refused = guest
        .call(&Buckets::new(&[]), CALLER, "/run", &numbers)
        .unwrap_err();
    assert_eq!(refused, (FailureKind::NotFound, "no such model".to_owned()));
}
