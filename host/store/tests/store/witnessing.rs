//! Logs of replicas: checkpoints, proofs, tiles, witnesses.

use std::sync::Arc;

use bield_envelope::{Seeded, SigningKey};
use bield_store::replica::origin_of;
use bield_store::witness::{NewLogs, WitnessError, WitnessServer, WitnessSettings, router};
use bield_tlog::{
    AddCheckpoint, Checkpoint, Hash, LogKey, LogVerifier, Origin, Quorum, SignedCheckpoint, Tree,
    VerifiedCheckpoint, WitnessVerifier, leaf_hash, verify_consistency, verify_inclusion,
};

use crate::crash::start;
use crate::support::*;

/// The log of `capsule` at the replica with this seed.
fn log(capsule: &Capsule, seed: u64) -> (Origin, LogVerifier) {
    let name = origin_of(&capsule.name(), principal(seed).as_bytes());
    let verifier = LogVerifier::new(name.parse().unwrap(), *principal(seed).as_bytes());
    (name.parse().unwrap(), verifier)
}

fn checkpoint(node: &Node, capsule: &Capsule, seed: u64) -> VerifiedCheckpoint {
    let note = node
        .client
        .get(&format!("/v1/capsules/{}/log/checkpoint", capsule.name()));
    assert_eq!(note.status, 200, "{}", note.text());
    let (origin, verifier) = log(capsule, seed);
    SignedCheckpoint::parse(&note.body)
        .unwrap()
        .verify(&origin, &[verifier])
        .unwrap()
}

fn hashes(value: &serde_json::Value) -> Vec<Hash> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| hash.as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn every_record_is_proven_to_be_in_the_log_and_the_log_only_grows() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, mut records) = capsule.chain(11, 300);
    node.client.fill(&capsule, &records);
    let first = checkpoint(&node, &capsule, 1);
    let record = capsule.data(&mut writer, b"later");
    node.client
        .append(&capsule.name(), std::slice::from_ref(&record));
    records.push(record);
    let second = checkpoint(&node, &capsule, 1);
    assert_eq!(second.checkpoint().size(), first.checkpoint().size() + 1);

    let size = second.checkpoint().size();
    let mut tree = Tree::new();
    for record in capsule.config.iter().chain(&records) {
        tree.append(record.hash().as_bytes());
    }
    assert_eq!(
        (tree.size(), tree.root()),
        (size, second.checkpoint().root())
    );
    let proof = tree
        .consistency_proof(first.checkpoint().size(), size)
        .unwrap();
    let roots = (first.checkpoint().root(), second.checkpoint().root());
    verify_consistency(first.checkpoint().size(), &roots.0, size, &roots.1, &proof).unwrap();

    let base = format!("/v1/capsules/{}/log", capsule.name());
    for record in [&records[0], &records[299], &capsule.config[0]] {
        let said = node
            .client
            .get(&format!("{base}/proof?hash={}&size={size}", record.hash()))
            .json();
        let (leaf, index) = (
            leaf_hash(record.hash().as_bytes()),
            said["index"].as_u64().unwrap(),
        );
        verify_inclusion(&leaf, index, size, &hashes(&said["hashes"]), &roots.1).unwrap();
    }
    let unknown = node
        .client
        .get(&format!("{base}/proof?hash={}", "00".repeat(32)));
    assert_eq!(unknown.refusal(), (404, "not-in-log".into()));

    let tile = node.client.get(&format!("{base}/tile/0/000"));
    let leaves: Vec<u8> = (0..256)
        .flat_map(|index| *tree.leaf(index).unwrap().as_bytes())
        .collect();
    assert_eq!(tile.body, leaves);
    let bundle = node.client.get(&format!("{base}/tile/entries/000"));
    let entries = bield_tlog::tile::read_entries(&bundle.body, 256).unwrap();
    assert_eq!(
        entries[5],
        capsule
            .config
            .iter()
            .chain(&records)
            .nth(5)
            .unwrap()
            .hash()
            .as_bytes()
    );
}

#[test]
fn a_checkpoint_outlives_a_restart_and_betrays_a_disk_that_was_set_back() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 5);
    node.client.fill(&capsule, &records[..3]);
    let (directory, _) = node.stop();
    let segments =
        |directory: &std::path::Path| directory.join("capsules").join(capsule.name().to_string());
    let path = segments(directory.path()).join(format!("{:020}.segment", 0));
    let before = std::fs::read(&path).unwrap();

    let setup = |directory| Setup {
        directory,
        ..Setup::new(1)
    };
    let node = setup(directory).start();
    node.client.fill(&capsule, &records);
    let newest = checkpoint(&node, &capsule, 1);
    let (directory, _) = node.stop();
    let node = setup(directory).start();
    assert_eq!(checkpoint(&node, &capsule, 1), newest);
    let (directory, _) = node.stop();

    std::fs::write(&path, before).unwrap();
    let node = setup(directory).start();
    let answer = node.client.get(&format!("/v1/capsules/{}", capsule.name()));
    assert_eq!(
        answer.refusal(),
        (500, "damaged".into()),
        "a log that forgot what it signed is not served"
    );
}

/// Starts the program; its URL and verifier key.
fn witness_program(
    data: &std::path::Path,
    more: &[&str],
) -> (crate::crash::Program, WitnessVerifier) {
    let mut arguments = vec!["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    arguments.extend_from_slice(more);
    let program = start(env!("CARGO_BIN_EXE_bield-witness"), &arguments);
    let printed = Client::new(&program.url).get("/").text();
    assert_eq!(printed.trim_end(), program.rest);
    let verifier = program.rest.parse().unwrap();
    (program, verifier)
}

#[test]
fn checkpoints_are_cosigned_by_every_witness_soon_after_the_records_are_synced() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, first) = witness_program(directories[0].path(), &["--any-capsule"]);
    let (two, second) = witness_program(
        directories[1].path(),
        &["--any-capsule", "--name", "witness.example/two"],
    );
    let witnesses = vec![
        format!("{}={first}", one.url),
        format!("{}={second}", two.url),
    ];
    let node = Setup {
        witnesses,
        ..Setup::new(1)
    }
    .start();
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, records) = capsule.chain(11, 3);
    node.client.fill(&capsule, &records);
    let quorum = Quorum::new(vec![first, second], 2).unwrap();
    let cosigned = |size: u64| {
        let note = checkpoint(&node, &capsule, 1);
        note.checkpoint().size() >= size && quorum.check(&note, now(), WAIT).is_ok()
    };
    let size = (capsule.config.len() + records.len()) as u64;
    eventually("both cosign", || cosigned(size));
    let next = capsule.data(&mut writer, b"next");
    assert_eq!(node.client.append(&capsule.name(), &[next]).status, 200);
    let cosigned = |size: u64| {
        let note = checkpoint(&node, &capsule, 1);
        note.checkpoint().size() >= size && quorum.check(&note, now(), WAIT).is_ok()
    };
    eventually("both cosign the next", || cosigned(size + 1));
    let monitored = Client::new(&one.url).get(&format!(
        "/{}/checkpoint",
        log(&capsule, 1).0.path_segment()
    ));
    assert_eq!(
        SignedCheckpoint::parse(&monitored.body)
            .unwrap()
            .claimed()
            .size(),
        size + 1
    );

    // After a restart the sizes are asked for, not assumed.
    let (directory, _) = node.stop();
    let witnesses = vec![
        format!("{}={}", one.url, one.rest),
        format!("{}={}", two.url, two.rest),
    ];
    let node = Setup {
        directory,
        witnesses,
        ..Setup::new(1)
    }
    .start();
    let next = capsule.data(&mut writer, b"after the restart");
    assert_eq!(node.client.append(&capsule.name(), &[next]).status, 200);
    eventually("both cosign after a restart", || {
        let note = checkpoint(&node, &capsule, 1);
        note.checkpoint().size() == size + 2 && quorum.check(&note, now(), WAIT).is_ok()
    });
}

#[test]
fn a_witness_that_is_down_holds_nothing_up_and_cosigns_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (program, verifier) = witness_program(directory.path(), &["--any-capsule"]);
    let (url, rest) = (program.url.clone(), program.rest.clone());
    drop(program);
    let node = Setup {
        witnesses: vec![format!("{url}={rest}")],
        ..Setup::new(1)
    }
    .start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 3);
    node.client.fill(&capsule, &records);
    let size = (capsule.config.len() + records.len()) as u64;
    eventually("the checkpoint is served uncosigned", || {
        checkpoint(&node, &capsule, 1).checkpoint().size() == size
    });
    let address = url.strip_prefix("http://").unwrap();
    let data = directory.path().to_str().unwrap();
    let again = start(
        env!("CARGO_BIN_EXE_bield-witness"),
        &["--data", data, "--listen", address, "--any-capsule"],
    );
    assert_eq!(again.rest, rest, "its key stays");
    let quorum = Quorum::new(vec![verifier], 1).unwrap();
    eventually("it is cosigned", || {
        quorum
            .check(&checkpoint(&node, &capsule, 1), now(), WAIT)
            .is_ok()
    });
}

/// A witness in this process.
fn served(settings: WitnessSettings) -> (Client, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let witness = Arc::new(WitnessServer::open(settings).unwrap());
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
    runtime.spawn(async move { axum::serve(listener, router(witness)).await.unwrap() });
    (client, runtime)
}

fn settings(data: &std::path::Path) -> WitnessSettings {
    WitnessSettings {
        data: data.to_owned(),
        name: None,
        logs: Vec::new(),
        any_capsule: true,
        any_keys: false,
        new_logs: NewLogs::default(),
    }
}

/// The log of a key service: origin, key, and the body that asks for a cosignature with a nonce.
struct KeysLog {
    origin: Origin,
    key: LogKey,
}

impl KeysLog {
    fn new(seed: u64) -> Self {
        let key = SigningKey::generate(&mut Seeded::new(seed));
        let public = principal(seed);
        let public: String = public
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let origin: Origin = format!("bield/keys/{}/{public}", "5a".repeat(32))
            .parse()
            .unwrap();
        let key = LogKey::new(origin.as_str().parse().unwrap(), key.seed());
        Self { origin, key }
    }

    fn checkpoint(&self, tree: &Tree, nonce: u8) -> VerifiedCheckpoint {
        let plain = Checkpoint::new(self.origin.clone(), tree.size(), tree.root());
        let text = format!("{plain}nonce {}\n", format!("{nonce:02x}").repeat(32));
        Checkpoint::parse(&text).unwrap().sign(&self.key)
    }

    fn request(&self, old: u64, tree: &Tree, nonce: u8) -> Vec<u8> {
        let proof = tree.consistency_proof(old, tree.size()).unwrap();
        let request = AddCheckpoint::new(old, proof, &self.checkpoint(tree, nonce)).unwrap();
        request.to_string().into_bytes()
    }
}

#[test]
fn a_stranger_with_many_logs_shuts_out_neither_followed_nor_named_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (named, old) = (KeysLog::new(1), KeysLog::new(2));
    let open = || {
        served(WitnessSettings {
            logs: vec![
                format!("{}={}", named.origin, named.key.verifier())
                    .parse()
                    .unwrap(),
            ],
            any_capsule: false,
            any_keys: true,
            new_logs: NewLogs {
                burst: 3,
                every: std::time::Duration::from_secs(3600),
            },
            ..settings(directory.path())
        })
    };
    let (client, runtime) = open();
    let ask = |client: &Client, log: &KeysLog, old, size| {
        client.post("/add-checkpoint", &log.request(old, &tree(size, 1), 1))
    };
    assert_eq!(ask(&client, &old, 0, 5).status, 200);
    let flood = |client: &Client, from| -> Vec<u16> {
        let logs = (from..from + 5).map(KeysLog::new);
        logs.map(|log| ask(client, &log, 0, 1).status).collect()
    };
    assert_eq!(flood(&client, 10), [200, 200, 429, 429, 429]);
    let refused = ask(&client, &KeysLog::new(12), 0, 1);
    let said = refused.text();
    assert!(
        said.contains("--origin") && said.contains("Retry-After"),
        "{said}"
    );
    let seconds: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    // Who is followed pays nothing, and a named log needs no token for its first checkpoint.
    assert_eq!(ask(&client, &old, 5, 6).status, 200);
    assert_eq!(ask(&client, &named, 0, 3).status, 200);
    drop((client, runtime));

    let (client, _runtime) = open();
    assert_eq!(flood(&client, 20), [200, 200, 200, 429, 429]);
    assert_eq!(ask(&client, &old, 6, 7).status, 200);
    assert_eq!(ask(&client, &KeysLog::new(10), 1, 2).status, 200);
    assert_eq!(ask(&client, &named, 3, 4).status, 200);
    let metrics = client.get("/metrics").text();
    assert!(
        metrics.contains("refused_total{status=\"429\"} 2"),
        "{metrics}"
    );
}

#[test]
fn a_key_service_is_cosigned_afresh_at_its_size_and_never_at_a_smaller_or_another_one() {
    let keys = KeysLog::new(1);
    let named = format!("{}={}", keys.origin, keys.key.verifier());
    for followed in [Some(named), None] {
        let directory = tempfile::tempdir().unwrap();
        let (client, _runtime) = served(WitnessSettings {
            logs: followed.iter().map(|log| log.parse().unwrap()).collect(),
            any_capsule: false,
            any_keys: followed.is_none(),
            ..settings(directory.path())
        });
        let witness: WitnessVerifier = client.get("/").text().trim_end().parse().unwrap();
        let ask = |body: Vec<u8>| client.post("/add-checkpoint", &body);
        assert_eq!(ask(keys.request(0, &tree(5, 1), 1)).status, 200);

        // The same size with a new nonce: the answer covers that nonce and no other.
        let again = ask(keys.request(5, &tree(5, 1), 2));
        assert_eq!(again.status, 200, "{}", again.text());
        let witnesses = std::slice::from_ref(&witness);
        let asked = &mut keys.checkpoint(&tree(5, 1), 2);
        let times = asked.add_cosignatures(&again.text(), witnesses).unwrap();
        assert!(now().as_secs() - times[0].at.as_secs() < WAIT.as_secs());
        let other = &mut keys.checkpoint(&tree(5, 1), 1);
        assert!(other.add_cosignatures(&again.text(), witnesses).is_err());

        // A state that was set back asks from what it knows, and hears what the witness knows.
        let behind = ask(keys.request(3, &tree(3, 1), 3));
        assert_eq!((behind.status, behind.text().as_str()), (409, "5\n"));
        assert_eq!(ask(keys.request(5, &tree(5, 2), 4)).status, 422, "forked");
        assert_eq!(ask(keys.request(5, &tree(6, 2), 5)).status, 422, "forked");
        assert_eq!(ask(keys.request(5, &tree(6, 1), 6)).status, 200);
    }
}

#[test]
fn a_key_service_that_was_not_named_is_followed_only_when_any_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _runtime) = served(settings(directory.path()));
    let body = KeysLog::new(1).request(0, &tree(5, 1), 1);
    assert_eq!(client.post("/add-checkpoint", &body).status, 404);
}

/// A tree of `count` entries of one story.
fn tree(count: u8, story: u8) -> Tree {
    let mut tree = Tree::new();
    for entry in 0..count {
        tree.append(&[entry, if entry < 3 { 0 } else { story }]);
    }
    tree
}

#[test]
fn a_witness_cosigns_one_history_even_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let capsule = Capsule::new(10, &[]);
    let key = SigningKey::generate(&mut Seeded::new(1));
    let origin = log(&capsule, 1).0;
    let log_key = LogKey::new(origin.as_str().parse().unwrap(), key.seed());
    let request = |old: u64, tree: &Tree| {
        let signed = Checkpoint::new(origin.clone(), tree.size(), tree.root()).sign(&log_key);
        let proof = tree.consistency_proof(old, tree.size()).unwrap();
        AddCheckpoint::new(old, proof, &signed)
            .unwrap()
            .to_string()
            .into_bytes()
    };
    let (client, runtime) = served(settings(directory.path()));
    let ask = |client: &Client, body: &[u8]| client.post("/add-checkpoint", body);
    assert_eq!(ask(&client, &request(0, &tree(5, 1))).status, 200);
    let stale = ask(&client, &request(0, &tree(7, 1)));
    assert_eq!((stale.status, stale.text().as_str()), (409, "5\n"));
    assert_eq!(stale.headers["content-type"], "text/x.tlog.size");
    assert_eq!(
        ask(&client, &request(5, &tree(7, 2))).status,
        422,
        "another story"
    );
    drop(runtime);

    let (client, _runtime) = served(settings(directory.path()));
    let forgets = ask(&client, &request(0, &tree(6, 2)));
    assert_eq!(
        (forgets.status, forgets.text().as_str()),
        (409, "5\n"),
        "it remembers after a restart"
    );
    assert_eq!(ask(&client, &request(5, &tree(7, 2))).status, 422);
    assert_eq!(ask(&client, &request(5, &tree(7, 1))).status, 200);

    // Another key under the same origin, or an origin without a key: nobody's log.
    let thief = LogKey::new(
        origin.as_str().parse().unwrap(),
        SigningKey::generate(&mut Seeded::new(2)).seed(),
    );
    let forged = Checkpoint::new(origin.clone(), 8, tree(8, 1).root()).sign(&thief);
    let proof = tree(8, 1).consistency_proof(7, 8).unwrap();
    let forged = AddCheckpoint::new(7, proof, &forged).unwrap().to_string();
    assert_eq!(ask(&client, forged.as_bytes()).status, 403);
    let other: Origin = "example.com/log".parse().unwrap();
    let key = LogKey::new(other.as_str().parse().unwrap(), key.seed());
    let unknown = Checkpoint::new(other, 1, tree(1, 1).root()).sign(&key);
    let unknown = AddCheckpoint::new(0, Vec::new(), &unknown)
        .unwrap()
        .to_string();
    assert_eq!(ask(&client, unknown.as_bytes()).status, 404);
    assert_eq!(ask(&client, b"old").status, 400);
    let metrics = client.get("/metrics").text();
    assert!(
        metrics.contains("bield_witness_cosigned_total 1\n")
            && metrics.contains("{status=\"422\"} 1\n"),
        "{metrics}"
    );
}

#[test]
fn a_witness_keeps_its_name_since_it_is_part_of_its_verifier_key() {
    let directory = tempfile::tempdir().unwrap();
    let named = |name: Option<&str>| WitnessSettings {
        name: name.map(str::to_owned),
        ..settings(directory.path())
    };
    let verifier = |name| WitnessServer::open(named(name)).map(|open| open.verifier().to_owned());
    let first = verifier(Some("w1.example")).unwrap();
    assert!(first.starts_with("w1.example+"), "{first}");
    assert_eq!(verifier(None).unwrap(), first);
    let Err(refused) = verifier(Some("w2.example")) else {
        panic!("it took another name");
    };
    let said = refused.to_string();
    assert!(matches!(refused, WitnessError::OtherName { .. }), "{said}");
    assert!(
        said.contains("w1.example") && said.contains("w2.example"),
        "{said}"
    );
    assert_eq!(verifier(None).unwrap(), first);
}

#[test]
fn one_process_owns_the_directory_of_a_witness() {
    let directory = tempfile::tempdir().unwrap();
    let first = WitnessServer::open(settings(directory.path())).unwrap();
    let second = WitnessServer::open(settings(directory.path()))
        .err()
        .unwrap();
    assert!(matches!(second, WitnessError::Files(_)), "{second}");
    drop(first);
    WitnessServer::open(settings(directory.path())).unwrap();
}

#[test]
fn a_witness_that_cannot_tell_what_its_disk_will_show_says_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let capsule = Capsule::new(10, &[]);
    let key = SigningKey::generate(&mut Seeded::new(1));
    let origin = log(&capsule, 1).0;
    let log_key = LogKey::new(origin.as_str().parse().unwrap(), key.seed());
    let request = |old: u64, tree: &Tree| {
        let signed = Checkpoint::new(origin.clone(), tree.size(), tree.root()).sign(&log_key);
        let proof = tree.consistency_proof(old, tree.size()).unwrap();
        let request = AddCheckpoint::new(old, proof, &signed).unwrap();
        request.to_string().into_bytes()
    };
    let (client, runtime) = served(settings(directory.path()));
    let first = request(0, &tree(5, 1));
    assert_eq!(client.post("/add-checkpoint", &first).status, 200);

    // A directory in the file's place: the renaming fails.
    let path = directory.path().join("logs").join(origin.path_segment());
    let before = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let next = request(5, &tree(7, 1));
    assert_eq!(client.post("/add-checkpoint", &next).status, 500);
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, &before).unwrap();
    // It has cosigned 7 in its memory: neither another 7 nor the old 5 may leave.
    for body in [request(5, &tree(7, 2)), next.clone(), first] {
        assert_eq!(client.post("/add-checkpoint", &body).status, 500);
    }
    let monitor = format!("/{}/checkpoint", origin.path_segment());
    assert_eq!(client.get(&monitor).status, 500);
    drop(runtime);

    let (client, _runtime) = served(settings(directory.path()));
    assert_eq!(client.get(&monitor).body, before);
    assert_eq!(client.post("/add-checkpoint", &next).status, 200);
}

#[test]
fn a_checkpoint_to_which_nothing_is_added_is_not_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let (one, first) = witness_program(directory.path(), &["--any-capsule"]);
    let gone = tempfile::tempdir().unwrap();
    let (two, second) = witness_program(gone.path(), &["--any-capsule"]);
    let witnesses = vec![
        format!("{}={first}", one.url),
        format!("{}={second}", two.url),
    ];
    drop(two);
    let node = Setup {
        witnesses,
        ..Setup::new(1)
    }
    .start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 3);
    node.client.fill(&capsule, &records);
    let quorum = Quorum::new(vec![first], 1).unwrap();
    let size = (capsule.config.len() + records.len()) as u64;
    eventually("one of the two cosigns", || {
        let note = checkpoint(&node, &capsule, 1);
        note.checkpoint().size() == size && quorum.check(&note, now(), WAIT).is_ok()
    });
    let written = || {
        use std::os::unix::fs::MetadataExt as _;
        let path = node.directory.path().join("capsules");
        let path = path.join(capsule.name().to_string()).join("checkpoint");
        let file = std::fs::metadata(path).unwrap();
        (file.ino(), file.mtime(), file.mtime_nsec())
    };
    let (before, note) = (written(), checkpoint(&node, &capsule, 1));
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(written(), before, "the other witness is asked in vain");
    assert_eq!(checkpoint(&node, &capsule, 1), note);
}

#[test]
fn a_store_whose_witness_knows_a_longer_log_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let (program, verifier) = witness_program(directory.path(), &["--any-capsule"]);
    let setup = || Setup {
        witnesses: vec![format!("{}={verifier}", program.url)],
        ..Setup::new(1)
    };
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 5);
    let node = setup().start();
    node.client.fill(&capsule, &records);
    let size = (capsule.config.len() + records.len()) as u64;
    let quorum = Quorum::new(vec![verifier.clone()], 1).unwrap();
    eventually("it is cosigned", || {
        let note = checkpoint(&node, &capsule, 1);
        note.checkpoint().size() == size && quorum.check(&note, now(), WAIT).is_ok()
    });
    assert_eq!(node.client.get("/readyz").status, 200);
    drop(node);

    // The same key on another disk, which holds less.
    let node = setup().start();
    node.client.fill(&capsule, &records[..2]);
    eventually("it is not ready", || {
        let ready = node.client.get("/readyz");
        ready.status == 503 && ready.refusal().1 == "set-back"
    });
    let metrics = node.client.get("/metrics").text();
    assert!(metrics.contains("bield_store_set_back 1\n"), "{metrics}");
}
