//! The functions of `examples/`, as `cargo xtask guests` built them, on buckets in memory.

use std::sync::Arc;
use std::thread;

use bield_engine::{Engine as _, Rten};
use bield_function::{FailureKind, NnError, NnErrorKind};
use bield_guests::{Buckets, javascript};
use bield_package::ModelFormat;
use serde_json::{Value, json};

use crate::support::Guest;

const KEEPER: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn what_ten_callers_count_at_once_is_all_counted() {
    let counter = Guest::of(&javascript("counter").unwrap());
    let buckets = Buckets::new(&[("counters", true)]);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..5 {
                    counter
                        .json(&buckets, KEEPER, "/add", &json!({ "by": 3 }))
                        .unwrap();
                }
            });
        }
    });
    // Names that mean something to JavaScript are names like others; pages of keys are turned.
    for name in ["__proto__", "constructor", "c", "d"] {
        counter
            .json(&buckets, KEEPER, "/add", &json!({ "name": name, "by": -1 }))
            .unwrap();
    }
    let all = counter.json(&buckets, KEEPER, "/list", &json!({})).unwrap();
    assert_eq!(
        all,
        json!({ "clicks": 150, "__proto__": -1, "constructor": -1, "c": -1, "d": -1 })
    );
}

#[test]
fn a_counter_refuses_what_it_cannot_count() {
    let counter = Guest::of(&javascript("counter").unwrap());
    let buckets = Buckets::new(&[("counters", true)]);
    let refused = |body: &[u8]| counter.call(&buckets, KEEPER, "/add", body).unwrap_err();
    assert_eq!(refused(br#"{ "by": 0.5 }"#).0, FailureKind::BadRequest);
    assert_eq!(refused(b"{").0, FailureKind::BadRequest);
    assert_eq!(refused(b"\xff").0, FailureKind::BadRequest);
    let nothing = counter.call(&buckets, KEEPER, "/nothing", b"").unwrap_err();
    assert_eq!(nothing.0, FailureKind::NotFound);
    assert!(buckets.lines().is_empty());

    // What goes wrong inside is for the owner's log.
    let eventual = Buckets::new(&[("counters", false)]);
    let (kind, words) = counter.call(&eventual, KEEPER, "/add", b"").unwrap_err();
    assert_eq!(
        (kind, words.contains("unsupported")),
        (FailureKind::Failed, false)
    );
    let lines = eventual.lines().join("\n");
    assert!(
        lines.contains("bucket counters: unsupported") && lines.contains("kv.js"),
        "{lines}"
    );
}

#[test]
fn ten_buyers_at_once_never_buy_more_than_there_is() {
    let cart = Guest::of(&javascript("cart").unwrap());
    let buckets = Buckets::new(&[("shop", true), ("stock", true)]);
    let ask = |caller, path, body| cart.json(&buckets, caller, path, &body);
    ask(KEEPER, "/restock", json!({ "item": "apples", "count": 7 })).unwrap();

    // Half of them share a cart; one has a name that objects of JavaScript have already.
    let carts = [
        "family",
        "constructor",
        "family",
        "c",
        "family",
        "d",
        "family",
        "e",
        "family",
        "f",
    ];
    let bought = thread::scope(|scope| {
        let buyers = carts.map(|name| {
            let ask = &ask;
            scope.spawn(move || ask(OTHER, "/add", json!({ "item": "apples", "cart": name })))
        });
        let done = buyers.map(|buyer| buyer.join().unwrap());
        let conflicts = done
            .iter()
            .filter(|done| matches!(done, Err((FailureKind::Conflict, _))));
        assert_eq!(conflicts.count(), 3);
        done.iter().filter(|done| done.is_ok()).count()
    });
    assert_eq!(bought, 7);
    let held = held(&buckets);
    assert_eq!((held["left"].as_u64(), sum(&held["held"])), (Some(0), 7));
}

#[test]
fn what_is_in_carts_on_the_shelf_and_sold_is_what_was_stocked() {
    let cart = Guest::of(&javascript("cart").unwrap());
    let buckets = Buckets::new(&[("shop", true), ("stock", true)]);
    let ask = |caller, path, body| cart.json(&buckets, caller, path, &body);
    for item in ["apples", "pears", "plums", "figs", "__proto__"] {
        ask(KEEPER, "/restock", json!({ "item": item, "count": 5 })).unwrap();
    }
    let denied = ask(OTHER, "/restock", json!({ "item": "apples" })).unwrap_err();
    assert_eq!(denied.0, FailureKind::Denied);
    assert_eq!(
        ask(OTHER, "/add", json!({ "item": "nuts" })).unwrap_err().0,
        FailureKind::NotFound
    );
    assert_eq!(
        ask(OTHER, "/add", json!({ "item": "figs", "count": 0 }))
            .unwrap_err()
            .0,
        FailureKind::BadRequest
    );

    for (name, item, count) in [
        ("family", "apples", 3),
        ("__proto__", "apples", 1),
        ("family", "__proto__", 2),
    ] {
        ask(
            OTHER,
            "/add",
            json!({ "cart": name, "item": item, "count": count }),
        )
        .unwrap();
    }
    ask(
        KEEPER,
        "/remove",
        json!({ "cart": "family", "item": "apples" }),
    )
    .unwrap();
    let too_many = ask(
        KEEPER,
        "/remove",
        json!({ "cart": "family", "item": "apples", "count": 3 }),
    );
    assert_eq!(
        too_many.unwrap_err(),
        (
            FailureKind::Conflict,
            "the cart holds 2 of apples".to_owned()
        )
    );

    let shown = ask(OTHER, "/show", json!({ "cart": "family" })).unwrap();
    assert_eq!(shown, json!({ "apples": 2, "__proto__": 2 }));
    assert_eq!(
        ask(OTHER, "/checkout", json!({ "cart": "family" })).unwrap(),
        shown
    );
    assert_eq!(
        ask(OTHER, "/checkout", json!({ "cart": "family" })).unwrap(),
        json!({})
    );
    let apples = held(&buckets);
    assert_eq!(
        apples,
        json!({ "left": 2, "held": { "__proto__": 1 }, "sold": 2 })
    );
    let stock = ask(OTHER, "/stock", json!({})).unwrap();
    assert_eq!(
        stock,
        json!({ "__proto__": 3, "apples": 2, "figs": 5, "pears": 5, "plums": 5 })
    );
}

#[test]
fn kinds_of_files_come_from_the_model_and_are_shown_to_who_asked_only() {
    let model = std::env::var_os("BIELD_MODEL_MAGIKA")
        .expect("BIELD_MODEL_MAGIKA: `cargo xtask test` says it");
    let model = Rten::new(1)
        .load(std::fs::read(model).unwrap(), ModelFormat::Onnx)
        .unwrap();
    let run: Arc<bield_guests::Models> = Arc::new(move |_, inputs| {
        model
            .run(&inputs, &[])
            .map_err(|error| NnError::new(NnErrorKind::Runtime, error.to_string()))
    });
    let classifier = Guest::of(&javascript("classifier").unwrap());
    let buckets = Buckets::new(&[("results", false)]).with_model("magika", run);

    // The repository's own files: were the labels in another order, none of these would be right.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let known = [
        ("README.md", "markdown"),
        ("Cargo.toml", "toml"),
        ("examples/file-type/golden.json", "json"),
        ("client/cli/src/lib.rs", "rust"),
        ("client/cli/templates/c/src/bield.c", "c"),
        ("examples/cart/src/function.js", "javascript"),
        ("testing/guests/c/guest.wasm", "wasm"),
    ];
    for (path, kind) in known {
        let file = std::fs::read(root.join(path)).unwrap();
        let answer = classifier
            .call(&buckets, KEEPER, &format!("/classify/{path}"), &file)
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["kind"], kind, "{path}: {answer}");
    }
    let empty = classifier
        .call(&buckets, OTHER, "/classify/empty", b"  \n")
        .unwrap();
    assert!(serde_json::from_slice::<Value>(&empty).unwrap()["kind"].is_string());

    let ask = |caller, path: &str| classifier.json(&buckets, caller, path, &json!({}));
    let mine = ask(KEEPER, "/list").unwrap();
    assert_eq!(mine.as_object().unwrap().len(), known.len());
    assert_eq!(mine["README.md"]["kind"], "markdown");
    assert_eq!(ask(OTHER, "/list").unwrap().as_object().unwrap().len(), 1);
    assert_eq!(
        ask(OTHER, "/forget/README.md").unwrap_err().0,
        FailureKind::NotFound
    );
    ask(KEEPER, "/forget/README.md").unwrap();
    assert!(ask(KEEPER, "/list").unwrap().get("README.md").is_none());
}

#[test]
fn workers_find_shorter_ways_together_and_every_way_is_free() {
    let search = Guest::of(&javascript("path-search").unwrap());
    let buckets = Buckets::new(&[("paths", false)]);
    let ask = |buckets: &Buckets, path, body| search.json(buckets, KEEPER, path, &body);
    assert_eq!(
        ask(&buckets, "/best", json!({})).unwrap_err().0,
        FailureKind::NotFound
    );

    let work = |buckets: &Buckets, worker: &str, seed: u64| {
        ask(
            buckets,
            "/search",
            json!({ "worker": worker, "seed": seed, "steps": 600 }),
        )
        .unwrap()
    };
    // The same seed alone does the same; after somebody found a way, it follows less.
    let alone = [0, 1].map(|_| work(&Buckets::new(&[("paths", false)]), "a", 2));
    assert_eq!(alone[0], alone[1]);
    let first = work(&buckets, "b", 1);
    let after = work(&buckets, "a", 2);
    assert!(
        first["best"].is_number() && after["nodes"].as_u64() < alone[0]["nodes"].as_u64(),
        "{alone:?} {after}"
    );

    thread::scope(|scope| {
        for (worker, seed) in [("a", 3), ("b", 4), ("c", 5), ("d", 6)] {
            let (work, buckets) = (&work, &buckets);
            scope.spawn(move || work(buckets, worker, seed));
        }
    });
    let best = ask(&buckets, "/best", json!({})).unwrap();
    assert!(best["length"].as_f64() <= first["best"].as_f64());
    assert_is_a_free_way(&best);
}

/// Begins at the start, ends at the goal, is as long as it says, and keeps out of each obstacle, looked at closely.
fn assert_is_a_free_way(best: &Value) {
    let numbers = |value: &Value| -> Vec<f64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|number| number.as_f64().unwrap())
            .collect()
    };
    let path: Vec<Vec<f64>> = best["path"]
        .as_array()
        .unwrap()
        .iter()
        .map(&numbers)
        .collect();
    assert_eq!(path[0], numbers(&best["start"]));
    assert_eq!(path[path.len() - 1], numbers(&best["goal"]));
    let far = |a: &[f64], b: &[f64]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let length: f64 = path.windows(2).map(|step| far(&step[0], &step[1])).sum();
    assert!((length - best["length"].as_f64().unwrap()).abs() < 1e-9);
    let obstacles: Vec<Vec<f64>> = best["obstacles"]
        .as_array()
        .unwrap()
        .iter()
        .map(&numbers)
        .collect();
    assert!(obstacles.len() > 10);
    for step in path.windows(2) {
        for part in 0..=1000 {
            let part = f64::from(part) / 1000.0;
            let at = [0, 1].map(|axis| step[0][axis] + part * (step[1][axis] - step[0][axis]));
            assert!(
                obstacles.iter().all(|round| far(round, &at) > round[2]),
                "{at:?}"
            );
        }
    }
}

fn held(buckets: &Buckets) -> Value {
    serde_json::from_slice(&buckets.contents("stock")["apples"]).unwrap()
}

fn sum(counts: &Value) -> u64 {
    counts
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum()
}
