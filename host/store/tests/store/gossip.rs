//! Replicas among themselves: catching up, lying, forking writers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bield_capsule::{
    Change, Head, Received, Suite, Writer, WriterCertificate, WriterId, WriterKey,
};
use bield_envelope::{Seeded, Signed, SigningKey, Time};

use crate::support::*;

/// `count` addresses of this machine that were free a moment ago.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}

fn url(address: &SocketAddr) -> String {
    format!("http://{address}")
}

/// Replica `n` of those at `addresses`, a peer of all others.
fn member(n: usize, addresses: &[SocketAddr]) -> Setup {
    let others = addresses
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != n);
    Setup {
        listen: Some(addresses[n]),
        peers: others
            .map(|(other, address)| format!("{}={}", url(address), principal(other as u64 + 1)))
            .collect(),
        follow: true,
        ..Setup::new(n as u64 + 1)
    }
}

fn holds(node: &Node, capsule: &Capsule, head: Head) -> bool {
    node.client.head_of(&capsule.name(), &head.writer) == Some(head)
}

#[test]
fn a_replica_that_was_down_catches_up_with_what_it_missed() {
    let addresses = addresses(3);
    let nodes: Vec<Node> = (0..3).map(|n| member(n, &addresses).start()).collect();
    let [first, second, third] = <[Node; 3]>::try_from(nodes).ok().unwrap();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 3);
    first.client.fill(&capsule, &records);
    eventually("all follow", || {
        [&second, &third]
            .iter()
            .all(|node| holds(node, &capsule, writer.head().unwrap()))
    });

    let (directory, _) = third.stop();
    let (other, more) = capsule.chain(12, 4);
    second.client.append(&capsule.name(), &capsule.config);
    assert_eq!(second.client.append(&capsule.name(), &more).status, 200);
    let next: Vec<Received> = (0..1500)
        .map(|n: u32| capsule.data(&mut writer, &n.to_be_bytes()))
        .collect();
    assert_eq!(first.client.append(&capsule.name(), &next).status, 200);

    let third = Setup {
        directory,
        ..member(2, &addresses)
    }
    .start();
    for node in [&first, &second, &third] {
        eventually("everyone has both chains", || {
            holds(node, &capsule, writer.head().unwrap())
                && holds(node, &capsule, other.head().unwrap())
        });
    }
    let all: Vec<Received> = records.into_iter().chain(next).collect();
    assert_eq!(third.client.records(&capsule.name(), &writer.id()), all);
    let peer = url(&addresses[0]);
    assert!(third.metrics().peer_count(&peer).refused == 0);
}

#[test]
fn only_missing_ranges_are_fetched_and_equal_replicas_fetch_nothing() {
    let addresses = addresses(2);
    let nodes: Vec<Node> = (0..2).map(|n| member(n, &addresses).start()).collect();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 200);
    nodes[0].client.fill(&capsule, &records);
    eventually("it follows", || {
        holds(&nodes[1], &capsule, writer.head().unwrap())
    });
    let peer = url(&addresses[0]);
    let fetched = || nodes[1].metrics().peer_count(&peer);
    // What was fetched is counted once it is here.
    let all = (records.len() + capsule.config.len()) as u64;
    eventually("it is counted", || {
        fetched().records == all && fetched().lag == 0
    });
    let before = fetched();
    let one = capsule.data(&mut writer, b"one more");
    nodes[0]
        .client
        .append(&capsule.name(), std::slice::from_ref(&one));
    eventually("it follows again", || {
        holds(&nodes[1], &capsule, one.head())
    });
    eventually("it is counted too", || {
        fetched().records == before.records + 1
    });
    let after = fetched();
    assert!((after.bytes - before.bytes) as usize <= one.as_bytes().len() + 4);
    eventually("rounds go on", || fetched().rounds >= after.rounds + 5);
    assert_eq!((fetched().bytes, fetched().lag), (after.bytes, 0));
}

#[test]
fn a_peer_is_not_followed_unless_told_and_then_only_admitted_owners() {
    let addresses = addresses(3);
    let first = member(0, &addresses).start();
    let (mut capsule, other) = (Capsule::new(10, &[]), Capsule::new(20, &[]));
    let (writer, records) = capsule.chain(11, 1);
    first.client.fill(&capsule, &records);
    first.client.fill(&other, &[]);
    let second = Setup {
        follow: false,
        ..member(1, &addresses)
    }
    .start();
    let owners = bield_store::admission::Owners::Listed([capsule.owner.id()].into());
    let third = Setup {
        owners,
        ..member(2, &addresses)
    }
    .start();
    eventually("the admitted one arrives", || {
        holds(&third, &capsule, writer.head().unwrap())
    });
    eventually("rounds pass", || {
        second.metrics().peer_count(&url(&addresses[0])).rounds >= 3
    });
    assert_eq!(
        second.client.get("/v1/capsules").json()["capsules"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        third.client.get("/v1/capsules").json()["capsules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_forking_writer_is_frozen_everywhere_and_everyone_holds_the_proof() {
    let addresses = addresses(3);
    let nodes: Vec<Node> = (0..3).map(|n| member(n, &addresses).start()).collect();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 4);
    nodes[0].client.fill(&capsule, &records);
    for node in &nodes {
        eventually("all follow", || {
            holds(node, &capsule, writer.head().unwrap())
        });
    }
    // One story of two records to the first, another of five to the second.
    let mut twin = capsule.twin(11, &records);
    let name = capsule.name();
    let left: Vec<_> = (0..2).map(|n| capsule.data(&mut writer, &[n])).collect();
    let right: Vec<_> = (0..5).map(|n| capsule.data(&mut twin, &[n, 9])).collect();
    let (client, body) = (nodes[0].client.clone(), left.clone());
    let sending = std::thread::spawn(move || client.append(&name, &body).status);
    nodes[1].client.append(&capsule.name(), &right);
    sending.join().unwrap();
    for node in &nodes {
        eventually("the proof is everywhere", || {
            let proofs = node.client.forks(&capsule.name());
            proofs.iter().any(|proof| {
                let fork = bield_capsule::ForkProof::decode(proof)
                    .unwrap()
                    .verify(&capsule.name())
                    .unwrap();
                (fork.writer, fork.seq) == (writer.id(), 5) || fork.writer == writer.id()
            })
        });
        for next in [
            capsule.data(&mut writer, b"left"),
            capsule.data(&mut twin, b"right"),
        ] {
            let answer = node.client.append(&capsule.name(), &[next]);
            assert_eq!(answer.status, 409, "{}", answer.text());
        }
    }
    // The owner cuts before the fork; the capsule goes on with others.
    let cut = Change::Revoke {
        writer: writer.id(),
        last: Some(records[4].head().into()),
    };
    let revoke = capsule.configure(&[cut]);
    assert_eq!(
        nodes[2].client.append(&capsule.name(), &[revoke]).status,
        200
    );
    for node in &nodes {
        eventually("all agree on what stays", || {
            holds(node, &capsule, records[4].head())
        });
    }
}

#[test]
fn a_replica_that_joins_late_takes_old_records_on_the_word_of_a_configured_replica_only() {
    let certifier = SigningKey::generate(&mut Seeded::new(5));
    let mut capsule = Capsule::new(10, &[Change::Certify(certifier.principal())]);
    let vouches = Change::Replica {
        principal: principal(1),
        address: "http://one".into(),
    };
    capsule.configure(&[vouches]);
    // A certificate that ends in two seconds, beyond the grace of 60 s when the late one arrives.
    let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(6));
    let past = Time::from_millis(now().as_millis() - 120_000);
    let certificate = WriterCertificate {
        capsule: capsule.name(),
        writer: key.id(),
        code: None,
        simulated: false,
        not_before: past,
        not_after: Time::from_millis(now().as_millis() - 58_000),
    };
    let certificate = Signed::sign(&certifier, certificate).as_bytes().to_vec();
    let (writer, open) = Writer::open(
        key,
        &capsule.metadata,
        capsule.owner.head().unwrap(),
        Some(&certificate),
        past,
    )
    .unwrap();
    let first = Setup::new(1).start();
    first.client.fill(&capsule, std::slice::from_ref(&open));
    std::thread::sleep(std::time::Duration::from_millis(2500));

    let direct = Setup::new(9).start();
    direct.client.fill(&capsule, &[]);
    assert_eq!(
        direct.client.append(&capsule.name(), &[open]).refusal(),
        (403, "certificate".into())
    );
    let late = Setup {
        peers: vec![first.url()],
        follow: true,
        ..Setup::new(2)
    }
    .start();
    eventually("the configured replica vouches", || {
        holds(&late, &capsule, writer.head().unwrap())
    });
}

/// A replica that passes everything on, changed by `lie`.
fn liar(
    truth: String,
    lie: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> (String, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lie = Arc::new(lie);
    let client = Client::new(&truth);
    let app = Router::new().fallback(move |request: Request<Body>| {
        let (client, lie) = (client.clone(), Arc::clone(&lie));
        async move {
            let path = request.uri().path_and_query().unwrap().to_string();
            let told = path.clone();
            let answer = tokio::task::spawn_blocking(move || client.get(&told))
                .await
                .unwrap();
            let status = axum::http::StatusCode::from_u16(answer.status).unwrap();
            let body = if answer.status == 200 {
                lie(&path, answer.body)
            } else {
                answer.body
            };
            let response: Response = (status, body).into_response();
            response
        }
    });
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, runtime)
}

fn is_page(path: &str, writer: &WriterId) -> bool {
    path.contains(&format!("/records/{writer}"))
}

#[test]
fn a_lying_peer_is_refused_and_counted_and_an_honest_one_repairs() {
    let truth = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 6);
    truth.client.fill(&capsule, &records);
    let id = writer.id();
    let signature_at = records[0].header_bytes().len() + 4;
    type Lie = Box<dyn Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync>;
    let lies: Vec<(&str, Lie)> = vec![
        (
            "a changed body",
            Box::new(move |path, mut body| {
                if is_page(path, &id) {
                    *body.last_mut().unwrap() ^= 1;
                }
                body
            }),
        ),
        (
            "a changed signature",
            Box::new(move |path, mut body| {
                if is_page(path, &id) {
                    body[signature_at] ^= 1;
                }
                body
            }),
        ),
        (
            "withheld records",
            Box::new(
                move |path, body| {
                    if is_page(path, &id) { Vec::new() } else { body }
                },
            ),
        ),
        (
            "records in another order",
            Box::new(move |path, body| {
                if !is_page(path, &id) {
                    return body;
                }
                let mut records = unframed(&body);
                records.swap(1, 2);
                framed(&records)
            }),
        ),
        (
            "a cut page",
            Box::new(move |path, mut body| {
                if is_page(path, &id) {
                    body.truncate(body.len() / 2);
                }
                body
            }),
        ),
        ("an old statement of heads", {
            let first = std::sync::Mutex::new(None::<Vec<u8>>);
            Box::new(move |path, body| {
                if !path.contains("/heads") {
                    return body;
                }
                let mut first = first.lock().unwrap();
                match &*first {
                    Some(old) => old.clone(),
                    None => {
                        // The very first answer is wrong too: the statement of another nonce.
                        let mut other = body.clone();
                        let last = other.len() - 1;
                        other[last] ^= 1;
                        *first = Some(body);
                        other
                    }
                }
            })
        }),
    ];
    for (what, lie) in lies {
        let calls = Arc::new(AtomicUsize::new(0));
        let (seen, lie) = (Arc::clone(&calls), lie);
        let (lying, runtime) = liar(truth.url(), move |path, body| {
            seen.fetch_add(1, Ordering::Relaxed);
            lie(path, body)
        });
        let node = Setup {
            peers: vec![lying.clone()],
            follow: true,
            ..Setup::new(2)
        }
        .start();
        eventually(what, || node.metrics().peer_count(&lying).refused >= 2);
        let held = node.client.records(&capsule.name(), &id);
        assert!(
            held.len() < records.len() && held[..] == records[..held.len()],
            "{what}: only the truth is stored"
        );
        // The same store with an honest peer beside the liar.
        let (directory, _) = node.stop();
        let peers = vec![lying.clone(), format!("{}={}", truth.url(), principal(1))];
        let node = Setup {
            directory,
            peers,
            follow: true,
            ..Setup::new(2)
        }
        .start();
        eventually(what, || holds(&node, &capsule, writer.head().unwrap()));
        assert!(calls.load(Ordering::Relaxed) > 2);
        drop(node);
        runtime.shutdown_background();
    }
}

#[test]
fn a_peer_with_another_principal_than_configured_is_not_believed() {
    let truth = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 1);
    truth.client.fill(&capsule, &records);
    let peers = vec![format!("{}={}", truth.url(), principal(7))];
    let node = Setup {
        peers,
        follow: true,
        ..Setup::new(2)
    }
    .start();
    eventually("its statements are refused", || {
        node.metrics().peer_count(&truth.url()).refused >= 2
    });
    let list = node.client.get("/v1/capsules").json();
    assert_eq!(list["capsules"][0]["records"], 0);
}

#[test]
fn an_answer_beyond_its_limit_is_a_lie_and_the_other_capsules_are_repaired() {
    let truth = Setup::new(1).start();
    let mut capsules = [Capsule::new(10, &[]), Capsule::new(20, &[])];
    capsules.sort_by_key(Capsule::name);
    let [mut bad, mut good] = capsules;
    let (_, records) = bad.chain(11, 2);
    truth.client.fill(&bad, &records);
    let (writer, records) = good.chain(12, 2);
    truth.client.fill(&good, &records);
    let heads = format!("/v1/capsules/{}/heads", bad.name());
    let (url, _runtime) = liar(truth.url(), move |path, body| {
        match path.starts_with(&heads) {
            true => vec![0; 3 << 20],
            false => body,
        }
    });
    let node = Setup {
        peers: vec![url.clone()],
        follow: true,
        ..Setup::new(2)
    }
    .start();
    eventually("the capsule behind it is here", || {
        holds(&node, &good, writer.head().unwrap())
    });
    let count = node.metrics().peer_count(&url);
    assert!(count.refused > 0 && count.failures == 0, "{count:?}");
}
