//! The example functions over real processes: what each promises while many call it at once.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bield_end_to_end::{Package, Person, Stack};
use bield_protocol::configuration::FunctionsConfiguration;
use bield_protocol::function::FailureKind;
use bield_sdk::{FunctionCall, Randomness, Target};
use serde_json::{Value, json};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn stack() -> Stack {
    Stack::start_runtime_with(None, |configuration| {
        configuration.threads = 2;
        configuration.functions = Some(FunctionsConfiguration {
            instances_max: 16,
            instance_mib_max: 256,
            several_owners: false,
        });
    })
    .unwrap()
}

/// The example as its owner publishes it, granted to these people.
fn published(
    owner: &Person,
    example: &str,
    models: &[(&str, &Package)],
    users: &[&Person],
) -> Package {
    let described = fs::read_to_string(examples().join(example).join("bield.toml")).unwrap();
    let component = bield_guests::javascript(example).unwrap();
    let package = owner
        .publish_function(&described, &component, models)
        .unwrap();
    for user in users {
        owner.grant(&package, user).unwrap();
    }
    package
}

type Said = Result<Value, (FailureKind, String)>;

/// One sealed call, its receipt verified; a runtime that refuses is a failure of the test.
fn ask(who: &Person, target: &Target, path: &str, body: &[u8]) -> Said {
    let call = FunctionCall {
        path: path.to_owned(),
        content_type: "application/json".to_owned(),
        body: body.to_vec().into(),
        seen: None,
    };
    let answered = target
        .call_function(&who.key, call, &mut Randomness)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    match answered.outcome {
        Ok(response) => Ok(serde_json::from_slice(&response.body).unwrap()),
        Err(failure) => Err((failure.kind, failure.message)),
    }
}

fn tell(who: &Person, target: &Target, path: &str, body: &Value) -> Said {
    ask(who, target, path, body.to_string().as_bytes())
}

/// What the function's owner reads, for a test that failed.
fn log(owner: &Person, target: &Target) -> String {
    let call = FunctionCall {
        path: "/~log".to_owned(),
        content_type: String::new(),
        body: Vec::new().into(),
        seen: None,
    };
    let answered = target.call_function(&owner.key, call, &mut Randomness);
    let response = answered.unwrap().outcome.ok().unwrap();
    String::from_utf8_lossy(&response.body).into_owned()
}

#[test]
fn what_many_callers_count_at_once_is_all_counted() {
    const CALLERS: u64 = 4;
    const CALLS: u64 = 10;
    let stack = stack();
    let people = ["owner", "ada", "ben", "cleo"].map(|name| stack.person(name).unwrap());
    let users: Vec<&Person> = people.iter().collect();
    let counter = published(&people[0], "counter", &[], &users);
    let largest = AtomicU64::new(0);
    thread::scope(|scope| {
        for caller in &people {
            let target = caller.target(&counter).unwrap();
            let largest = &largest;
            scope.spawn(move || {
                for _ in 0..CALLS {
                    let counted = tell(caller, &target, "/add", &json!({ "by": 3 })).unwrap();
                    largest.fetch_max(counted["value"].as_u64().unwrap(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(largest.into_inner(), 3 * CALLERS * CALLS);
    let target = people[1].target(&counter).unwrap();
    let all = ask(&people[1], &target, "/list", b"").unwrap();
    assert_eq!(all, json!({ "clicks": 3 * CALLERS * CALLS }));
}

#[test]
fn many_buyers_at_once_never_buy_more_than_there_is() {
    const STOCK: u64 = 23;
    const BUYERS: usize = 8;
    const TRIES: u64 = 5;
    let stack = stack();
    let owner = stack.person("keeper").unwrap();
    let buyers: Vec<Person> = (0..BUYERS)
        .map(|n| stack.person(&format!("buyer-{n}")).unwrap())
        .collect();
    let mut users: Vec<&Person> = buyers.iter().collect();
    users.push(&owner);
    let cart = published(&owner, "cart", &[], &users);
    let target = owner.target(&cart).unwrap();
    let stock = json!({ "item": "apples", "count": STOCK });
    let stocked = tell(&owner, &target, "/restock", &stock);
    let stocked = stocked.unwrap_or_else(|error| panic!("{error:?}: {}", log(&owner, &target)));
    assert_eq!(stocked["left"], STOCK);

    // Pairs of buyers share a cart.
    let name = |buyer: usize| format!("cart-{}", buyer / 2);
    let bought: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = buyers
            .iter()
            .enumerate()
            .map(|(number, buyer)| {
                let target = buyer.target(&cart).unwrap();
                let order = json!({ "item": "apples", "cart": name(number) });
                scope.spawn(move || {
                    let mut bought = 0;
                    for _ in 0..TRIES {
                        match tell(buyer, &target, "/add", &order) {
                            Ok(_) => bought += 1,
                            Err((kind, words)) => {
                                assert_eq!(kind, FailureKind::Conflict, "{words}");
                                assert!(words.contains("0 of apples left"), "{words}");
                            }
                        }
                    }
                    bought
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(bought.iter().sum::<u64>(), STOCK, "{bought:?}");

    let left = tell(&owner, &target, "/stock", &json!({})).unwrap();
    assert_eq!(left, json!({ "apples": 0 }));
    let mut sold = 0;
    for pair in 0..BUYERS / 2 {
        let sale = json!({ "cart": name(2 * pair) });
        let shown = tell(&owner, &target, "/show", &sale).unwrap();
        assert_eq!(
            shown["apples"].as_u64().unwrap_or(0),
            bought[2 * pair] + bought[2 * pair + 1]
        );
        let done = tell(&owner, &target, "/checkout", &sale).unwrap();
        sold += done["apples"].as_u64().unwrap_or(0);
        assert_eq!(
            tell(&owner, &target, "/checkout", &sale).unwrap(),
            json!({})
        );
    }
    assert_eq!(sold, STOCK);
    let denied = tell(
        &buyers[0],
        &buyers[0].target(&cart).unwrap(),
        "/restock",
        &stock,
    );
    assert_eq!(denied.unwrap_err().0, FailureKind::Denied);
}

#[test]
fn a_sealed_model_runs_for_callers_who_are_granted_it_and_each_sees_their_own() {
    let model = std::env::var_os("BIELD_MODEL_MAGIKA")
        .expect("BIELD_MODEL_MAGIKA: `cargo xtask test` says it");
    let stack = stack();
    let [owner, ada, ben] = ["owner", "ada", "ben"].map(|name| stack.person(name).unwrap());
    let magika = owner
        .publish_large("magika", &fs::read(model).unwrap())
        .unwrap();
    owner.grant(&magika, &ada).unwrap();
    let classifier = published(&owner, "classifier", &[("magika", &magika)], &[&ada, &ben]);
    let known = [
        ("bield.toml", "toml"),
        ("README.md", "markdown"),
        ("src/function.js", "javascript"),
    ];
    let target = ada.target(&classifier).unwrap();
    for (name, kind) in known {
        let file = fs::read(examples().join("classifier").join(name)).unwrap();
        let said = ask(&ada, &target, &format!("/classify/{name}"), &file).unwrap();
        assert_eq!(said["kind"], kind, "{name}: {said}");
    }
    let listed = ask(&ada, &target, "/list", b"").unwrap();
    let kinds = known.map(|(name, _)| listed[name]["kind"].as_str().unwrap().to_owned());
    assert_eq!(kinds, known.map(|(_, kind)| kind));

    // The function is granted to him, the model is not: he is told so, and it is no trouble of the function's.
    let target = ben.target(&classifier).unwrap();
    let file = b"# Title\n\nSome *text* that is markdown.\n";
    let (kind, words) = ask(&ben, &target, "/classify/note.md", file).unwrap_err();
    assert_eq!(kind, FailureKind::Denied, "{words}");
    assert!(
        words.contains("model magika") && words.contains("not-granted"),
        "{words}"
    );
    assert_eq!(ask(&ben, &target, "/list", b"").unwrap(), json!({}));
    // A grant counts from the next request on, though the runtime's lease of the model is older.
    owner.grant(&magika, &ben).unwrap();
    let said = ask(&ben, &target, "/classify/note.md", file).unwrap();
    assert!(said["kind"].is_string(), "{said}");
    let listed = ask(&ben, &target, "/list", b"").unwrap();
    assert_eq!(listed.as_object().unwrap().len(), 1, "{listed}");
}

#[test]
fn workers_at_once_share_the_best_path_that_any_of_them_found() {
    const WORKERS: usize = 4;
    let stack = stack();
    let owner = stack.person("owner").unwrap();
    let workers: Vec<Person> = (0..WORKERS)
        .map(|n| stack.person(&format!("worker-{n}")).unwrap())
        .collect();
    let mut users: Vec<&Person> = workers.iter().collect();
    users.push(&owner);
    let search = published(&owner, "path-search", &[], &users);
    let target = owner.target(&search).unwrap();
    let nothing = tell(&owner, &target, "/best", &json!({})).unwrap_err();
    assert_eq!(nothing.0, FailureKind::NotFound);

    let found: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter()
            .enumerate()
            .map(|(number, worker)| {
                let target = worker.target(&search).unwrap();
                scope.spawn(move || {
                    let round = |seed: usize| {
                        let order = json!({ "worker": format!("w{number}"), "seed": 10 * number + seed, "steps": 400 });
                        tell(worker, &target, "/search", &order).unwrap()
                    };
                    (0..3).fold(Value::Null, |_, seed| round(seed))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let best = tell(&owner, &target, "/best", &json!({})).unwrap();
    let length = best["length"].as_f64().unwrap();
    // What a worker knew at its end is no better than what all of them know now.
    let ends: Vec<f64> = found
        .iter()
        .filter_map(|found| found["best"].as_f64())
        .collect();
    assert_eq!(ends.len(), WORKERS, "{found:?}");
    assert!(ends.iter().all(|end| *end >= length), "{ends:?}, {length}");
    assert!(ends.contains(&length), "{ends:?}, {length}");
    let path = best["path"].as_array().unwrap();
    assert_eq!(
        (path.first(), path.last()),
        (Some(&best["start"]), Some(&best["goal"]))
    );
    let along: f64 = path
        .windows(2)
        .map(|pair| {
            let point = |n: usize, axis: usize| pair[n][axis].as_f64().unwrap();
            (point(1, 0) - point(0, 0)).hypot(point(1, 1) - point(0, 1))
        })
        .sum();
    assert!((along - length).abs() < 1e-6, "{along} {length}");
}
