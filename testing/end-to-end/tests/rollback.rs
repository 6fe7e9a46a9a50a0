//! A host that sets the key service's files back, cuts, alters, removes or copies them: who finds out, when, and what
//! they say.
//!
//! With witnesses everything is refused at the start. Without them, what the files themselves show is refused at the
//! start, and the rest at the first caller who has seen more.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bield_capsule::ledger_file::{FileReader, Item};
use bield_end_to_end::{Instance, Package, Person, Plan, Shared, Site, tiny_model, wait_until};
use bield_sdk::ServiceError;

const SOON: Duration = Duration::from_secs(30);

/// One without witnesses, for all tests that need no more.
static PLAIN: Shared<Site> =
    Shared::new(|| Site::new(Plan::default(), |config| config.orders_per_minute = 100_000));
/// Two of three witnesses must cosign.
static WITNESSED: Shared<Site> = Shared::new(|| {
    let plan = Plan {
        witnesses: (3, 2),
        ..Plan::default()
    };
    Site::new(plan, |_| ())
});

/// Where what happens in a test happens.
struct Scene<'a> {
    site: &'a Site,
    name: &'static str,
    owner: Person,
    package: Package,
}

impl<'a> Scene<'a> {
    /// A new service with an owner and a package, stopped in good order.
    fn new(site: &'a Site, name: &'static str) -> Self {
        let instance = site.start(name).unwrap();
        let owner = site.person(&format!("owner-{name}")).unwrap();
        let model = tiny_model(name);
        let package = owner.pack(name, &model).unwrap();
        owner.offer(&package, &model).unwrap();
        instance.stop().unwrap();
        Self {
            site,
            name,
            owner,
            package,
        }
    }

    /// Starts the service, has the owner grant so many times, and stops it.
    fn goes_on(&self, grants: usize) {
        let instance = self.site.start(self.name).unwrap();
        self.grants(grants);
        instance.stop().unwrap();
    }

    fn grants(&self, grants: usize) {
        let mut service = self.owner.service().unwrap();
        for _ in 0..grants {
            let grant = self.owner.draft(&self.package, &self.owner);
            let grant = bield_envelope::Signed::sign(&self.owner.key, grant);
            service.grant(&self.owner.key, &grant).unwrap();
        }
        service.close().unwrap();
    }

    /// Records the owner has seen.
    fn seen(&self) -> u64 {
        self.owner.home.head().unwrap().unwrap().size()
    }

    fn keep(&self, copy: &str) {
        self.site.copy(self.name, copy).unwrap();
    }

    fn put_back(&self, copy: &str) {
        self.site.copy(copy, self.name).unwrap();
    }

    /// The sentence with which the gateway's start ends, and that it ended with exit code 3.
    fn refused(&self) -> String {
        self.refused_after(self.name)
    }

    fn refused_after(&self, what: &str) -> String {
        let refused = match self.site.start(self.name) {
            Ok(instance) => panic!("{what}: not refused: {}", instance.process.said()),
            Err(refused) => refused.to_string(),
        };
        assert!(refused.contains("exit status: 3"), "{refused}");
        assert!(refused.contains("refuses to start"), "{refused}");
        refused
    }

    fn file(&self, start: &str) -> PathBuf {
        newest(&self.site.storage(self.name), start)
    }
}

/// The newest file whose name starts so.
fn newest(storage: &Path, start: &str) -> PathBuf {
    let files = fs::read_dir(storage).unwrap();
    let named = files.map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start)
    });
    named.max().unwrap()
}

/// Where the records of a log file end.
fn ends(log: &[u8]) -> Vec<usize> {
    let mut reader = FileReader::new();
    reader.push(log);
    let mut ends = Vec::new();
    loop {
        match reader.next_item() {
            Item::Record { .. } => ends.push(usize::try_from(reader.offset()).unwrap()),
            Item::Head(_) => {}
            _ => return ends,
        }
    }
}

/// Cuts the newest log file behind all but its last `records`.
fn cut(path: &Path, records: usize) {
    let log = fs::read(path).unwrap();
    let ends = ends(&log);
    fs::write(path, &log[..ends[ends.len() - 1 - records]]).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn code(refused: &ServiceError) -> String {
    refused.code().unwrap_or_default().to_owned()
}

#[test]
fn with_witnesses_an_older_copy_put_back_is_refused_at_start_and_says_how_far() {
    let site = WITNESSED.get();
    let scene = Scene::new(&site, "set-back");
    scene.keep("set-back-old");
    let old = scene.seen();
    scene.goes_on(5);
    let behind = scene.seen() - old;
    assert!(behind >= 5, "{behind}");
    scene.keep("set-back-new");

    scene.put_back("set-back-old");
    let refused = scene.refused();
    let sentence = format!("{behind} records behind what witness");
    assert!(refused.contains(&sentence), "{behind}: {refused}");
    assert!(refused.contains("an older one was put back"), "{refused}");
    // Nothing was served, nothing was changed: the newest files are taken as they are.
    scene.put_back("set-back-new");
    let instance = site.start(scene.name).unwrap();
    let (status, said) = instance.readyz().unwrap();
    assert_eq!((status, said.trim()), (200, "ready, key service serving"));
    scene.grants(1);
}

#[test]
fn with_witnesses_a_log_cut_at_a_record_is_refused_at_start() {
    let site = WITNESSED.get();
    let scene = Scene::new(&site, "cut");
    scene.goes_on(3);
    cut(&scene.file("log-"), 1);
    let refused = scene.refused();
    assert!(refused.contains("1 record behind"), "{refused}");
    // One byte of the last record altered looks like a write that did not end: the same as cut, and found the same.
    cut_back_and_alter(&scene);
}

fn cut_back_and_alter(scene: &Scene<'_>) {
    let instance = scene.site.start_on(0, scene.name);
    assert!(instance.is_err(), "still cut");
    let log = scene.file("log-");
    let length = fs::metadata(&log).unwrap().len();
    flip(&log, usize::try_from(length).unwrap() - 1);
    let refused = scene.refused();
    assert!(refused.contains("2 records behind"), "{refused}");
}

#[test]
fn with_witnesses_exactly_one_of_two_clones_goes_on() {
    let site = WITNESSED.get();
    let scene = Scene::new(&site, "clone");
    let first = site.start(scene.name).unwrap();
    scene.keep("clone-b");

    // The copy stands exactly where the original does: both are the newest that the witnesses know. The copy starts,
    // and from then on the original cannot commit.
    let second = site.start_on(0, "clone-b");
    let second = second.map_err(|error| error.to_string());
    let orders_at = |instance: &Instance, who: &str| {
        site.lead_to(instance).unwrap();
        let person = site.person(&format!("{who}-of-clones")).unwrap();
        let outcome = person.service().and_then(|mut service| {
            service.register(&person.key)?;
            service.close()
        });
        outcome.map_err(|error| error.to_string())
    };
    let by_first = orders_at(&first, "first");
    let by_second = match &second {
        Ok(second) => orders_at(second, "second"),
        Err(refused) => Err(refused.clone()),
    };
    let outcomes = [&by_first, &by_second];
    let going_on = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(going_on, 1, "{outcomes:?}");
    let refused = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let refused = refused.unwrap();
    assert!(
        refused.contains("another history") || refused.contains("records behind"),
        "{refused}"
    );
    // The one that lost says so to everybody from then on, and its operator sees it.
    let loser = if by_first.is_err() {
        Some(&first)
    } else {
        second.as_ref().ok()
    };
    if let Some(loser) = loser {
        assert!(orders_at(loser, "third").is_err());
        loser.becomes("stopped", SOON).unwrap();
        let (status, said) = loser.readyz().unwrap();
        assert_eq!(status, 503);
        assert!(said.contains("key service is stopped"), "{said}");
    }
    // The one that won goes on.
    let winner = if by_first.is_ok() {
        &first
    } else {
        second.as_ref().unwrap()
    };
    orders_at(winner, "fourth").unwrap();
}

#[test]
fn with_witnesses_a_wiped_state_is_another_service_to_everybody_who_knew_it() {
    let site = WITNESSED.get();
    let scene = Scene::new(&site, "wiped-witnessed");
    fs::remove_dir_all(site.storage(scene.name)).unwrap();
    let _instance = site.start(scene.name).unwrap();
    let refused = scene.owner.service().map(drop).unwrap_err();
    assert_eq!(code(&refused), "other-service", "{refused}");
}

#[test]
fn too_few_witnesses_are_named_and_waited_for() {
    let plan = Plan {
        witnesses: (3, 2),
        ..Plan::default()
    };
    let site = Site::new(plan, |_| ()).unwrap();
    let scene = Scene::new(&site, "lonely");
    let instance = site.start(scene.name).unwrap();
    // One may be away.
    site.witnesses[0].cut();
    scene.grants(1);
    // Two may not: an order is not acknowledged, and says so.
    site.witnesses[1].cut();
    let seen = scene.seen();
    let grant = scene.owner.draft(&scene.package, &scene.owner);
    let refused = scene.owner.allow(grant).map(drop).unwrap_err();
    assert_eq!(code(&refused), "not-durable", "{refused}");
    assert!(
        refused.to_string().contains("1 of the 2 needed witnesses"),
        "{refused}"
    );
    assert_eq!(scene.seen(), seen);
    instance.power_off().unwrap();
}

#[test]
fn without_witnesses_what_the_files_show_is_refused_at_start() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "files");
    // Enough for a snapshot and a second log file.
    scene.goes_on(1100);
    let instance = site.start(scene.name).unwrap();
    scene.grants(3);
    // Not stopped, which would be worth another snapshot.
    instance.power_off().unwrap();
    scene.keep("files-good");
    let log = |which: usize| {
        let mut logs: Vec<_> = fs::read_dir(site.storage(scene.name))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("log-")
            })
            .collect();
        logs.sort();
        logs.remove(which)
    };
    let middle = |path: &Path| usize::try_from(fs::metadata(path).unwrap().len()).unwrap() / 2;
    assert!(scene.file("snapshot-").is_file());

    // Each case: what is done, and what the sentence names.
    type Harm<'a> = Box<dyn Fn() + 'a>;
    let cases: [(&str, Harm<'_>, &[&str]); 5] = [
        (
            "a record in the middle of the newest log file altered",
            Box::new(|| {
                let path = scene.file("log-");
                let bytes = fs::read(&path).unwrap();
                flip(&path, ends(&bytes)[0] - 10);
            }),
            &["is altered", "restore the file"],
        ),
        (
            "the log cut below its snapshot",
            Box::new(|| {
                let newest = scene.file("log-");
                fs::remove_file(newest).unwrap();
                cut(&scene.file("log-"), 7);
            }),
            &["records", "put"],
        ),
        (
            "the newest log file gone",
            Box::new(|| fs::remove_file(scene.file("log-")).unwrap()),
            &["missing", "put it back"],
        ),
        (
            "the root file altered",
            Box::new(|| {
                let path = scene.file("root");
                flip(&path, middle(&path));
            }),
            &["was altered", "recovery files"],
        ),
        (
            "the root file gone",
            Box::new(|| fs::remove_file(scene.file("root")).unwrap()),
            &["root file is missing", "put the root file"],
        ),
    ];
    for (what, harm, named) in &cases {
        scene.put_back("files-good");
        harm();
        let harmed = contents(&site.storage(scene.name));
        let refused = scene.refused_after(what);
        for words in *named {
            assert!(refused.contains(words), "{what}: {refused}");
        }
        // What is there is left as it is: nothing begins anew over it.
        assert_eq!(contents(&site.storage(scene.name)), harmed, "{what}");
    }

    // A snapshot is only a shortcut: an altered one gives way to the log, and nothing is lost.
    scene.put_back("files-good");
    let snapshot = scene.file("snapshot-");
    flip(&snapshot, middle(&snapshot));
    // An older record is read again only when it is asked for: then it is found.
    flip(&log(0), middle(&log(0)));
    let outcome = site.start(scene.name);
    if let Ok(instance) = &outcome {
        assert_eq!(instance.state(), "serving");
        panic!(
            "without a snapshot the altered log must be read: {}",
            instance.process.said()
        );
    }
    scene.put_back("files-good");
    let snapshot = scene.file("snapshot-");
    flip(&snapshot, middle(&snapshot));
    let instance = site.start(scene.name).unwrap();
    let mut service = scene.owner.service().unwrap();
    assert_eq!(
        service.grants(&scene.owner.key, None, None).unwrap().len(),
        1103
    );
    drop(service);
    instance.stop().unwrap();
}

fn contents(storage: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = bield_end_to_end::files(storage).unwrap();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn without_witnesses_an_older_copy_is_refused_by_the_first_who_saw_more_then_by_itself() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "older");
    let stranger = site.person("stranger-older").unwrap();
    scene.keep("older-old");
    scene.goes_on(5);
    let seen = scene.seen();
    scene.put_back("older-old");

    let instance = site.start(scene.name).unwrap();
    // Whoever saw nothing cannot tell.
    let mut service = stranger.service().unwrap();
    let size = service.inspect().unwrap().size;
    drop(service);
    let behind = seen - size;
    assert!(behind > 0, "{seen} {size}");

    let doctor = scene.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1, "{doctor:?}");
    let text = doctor.value.to_string();
    let sentence = format!("{behind} record");
    assert!(text.contains(&sentence), "{behind}: {text}");
    assert!(
        text.contains("set back") || text.contains("ROLLED BACK"),
        "{text}"
    );

    // From then on it serves nobody, and says why.
    let refused = stranger.service().map(drop).unwrap_err();
    assert_eq!(code(&refused), "rolled-back", "{refused}");
    assert!(refused.to_string().contains(&sentence), "{refused}");
    instance.becomes("stopped", SOON).unwrap();
    let (status, said) = instance.readyz().unwrap();
    assert_eq!(status, 503, "{said}");
    assert!(instance.process.said().contains(&sentence));
    // Its operator looks; a restart over the same files does not help those who saw more.
    instance.stop().unwrap();
    let instance = site.start(scene.name).unwrap();
    let refused = scene.owner.service().map(drop).unwrap_err();
    assert_eq!(code(&refused), "rolled-back", "{refused}");
    instance.stop().unwrap();
}

#[test]
fn without_witnesses_a_fork_is_refused_by_the_first_who_saw_the_other_branch() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "forked");
    let other = site.person("other-branch").unwrap();
    scene.keep("forked-b");
    scene.goes_on(4);

    // The copy goes on too, with somebody else, and grows beyond the original.
    let instance = site.start("forked-b").unwrap();
    for _ in 0..3 {
        let mut service = other.service().unwrap();
        service.register(&other.key).unwrap();
        service.unregister(&other.key).unwrap();
        service.close().unwrap();
    }
    let longer = other.home.head().unwrap().unwrap().size();
    assert!(longer > scene.seen(), "{longer} {}", scene.seen());
    let doctor = scene.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1, "{doctor:?}");
    let text = doctor.value.to_string();
    assert!(text.contains("fork") || text.contains("FORKED"), "{text}");
    let refused = other.service().map(drop).unwrap_err();
    assert_eq!(code(&refused), "forked", "{refused}");
    instance.stop().unwrap();
}

#[test]
fn without_witnesses_a_log_cut_at_its_last_record_is_a_rollback_by_one() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "last");
    scene.goes_on(1);
    cut(&scene.file("log-"), 1);
    let instance = site.start(scene.name).unwrap();
    // It started, which is a record of its own: as many as before, and another history.
    let refused = scene.owner.service().map(drop).unwrap_err();
    assert!(
        ["rolled-back", "forked"].contains(&code(&refused).as_str()),
        "{refused}"
    );
    let everybody = wait_until(SOON, || instance.state() == "stopped");
    assert!(everybody, "{}", instance.process.said());
}

#[test]
fn a_wiped_state_is_a_new_service_that_a_home_accepts_only_by_hand() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "wiped");
    let seen = scene.seen();
    fs::remove_dir_all(site.storage(scene.name)).unwrap();
    let instance = site.start(scene.name).unwrap();

    let refused = scene.owner.service().map(drop).unwrap_err();
    assert_eq!(code(&refused), "other-service", "{refused}");
    assert!(
        refused
            .to_string()
            .contains(&format!("with {seen} records")),
        "{refused}"
    );
    let doctor = scene.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor.value.to_string().contains("NEW service"),
        "{doctor:?}"
    );

    // By hand, and for exactly this one.
    let newcomer = site.person("newcomer").unwrap();
    let found = newcomer.service().unwrap().principal();
    let wrong = scene.owner.principal().to_string();
    let accept = |who: &str| {
        scene
            .owner
            .bield(&["doctor", "--accept-service", who])
            .unwrap()
    };
    assert_eq!(accept(&wrong).code, 1);
    assert_eq!(
        scene.owner.service().map(drop).map_err(|e| code(&e)),
        Err("other-service".into())
    );
    assert_eq!(accept(&found.to_string()).code, 0);
    scene.owner.service().unwrap();
    instance.stop().unwrap();
}

#[test]
fn a_second_gateway_on_the_same_storage_is_refused_and_harms_nothing() {
    let site = PLAIN.get();
    let scene = Scene::new(&site, "twice");
    let first = site.start(scene.name).unwrap();
    let refused = site.start_on(0, scene.name).map(drop).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    scene.grants(1);
    first.stop().unwrap();
}
