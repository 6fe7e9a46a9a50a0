//! The worst day: the machines are gone, the host's files and the holders' shares are there.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bield_end_to_end::{Instance, Package, Person, Plan, Ran, Site, tiny_model};

/// Who can recover: any three of five.
const HOLDERS: usize = 5;
const THRESHOLD: usize = 3;

/// A service on machine 0 with shares in their holders' homes; machine 1 stands by.
struct Scene {
    site: Site,
    administrator: Person,
    holders: Vec<Person>,
    owner: Person,
    user: Person,
    package: Package,
}

impl Scene {
    fn new() -> (Self, Instance) {
        let plan = Plan {
            machines: 2,
            holders: (HOLDERS, 2),
            ..Plan::default()
        };
        let site = Site::new(plan, |_| ()).unwrap();
        let instance = site.start("state").unwrap();
        let person = |name: &str| site.person(name).unwrap();
        let administrator = person("administrator");
        let holders: Vec<_> = (0..HOLDERS)
            .map(|holder| person(&format!("holder-{holder}")))
            .collect();
        let (owner, user) = (person("owner"), person("user"));
        let model = tiny_model("recovered");
        let package = owner.pack("recovered", &model).unwrap();
        owner.offer(&package, &model).unwrap();
        owner.grant(&package, &user).unwrap();
        let scene = Self {
            site,
            administrator,
            holders,
            owner,
            user,
            package,
        };
        (scene, instance)
    }

    fn make_shares(&self) -> Ran {
        let mut arguments = vec!["recover".to_owned(), "make".into(), "--yes".into()];
        arguments.extend(["--threshold".into(), THRESHOLD.to_string()]);
        for holder in &self.holders {
            arguments.extend(["--holder".into(), holder.principal().to_string()]);
        }
        self.administrator.bield(&arguments).unwrap()
    }

    /// Each holder fetches its share; returns the files.
    fn take_shares(&self) -> Vec<PathBuf> {
        let take = |holder: &Person| {
            let taken = holder.does(&["recover", "take"]).unwrap();
            assert_eq!(taken["threshold"], THRESHOLD);
            PathBuf::from(taken["share"].as_str().unwrap())
        };
        self.holders.iter().map(take).collect()
    }

    fn grants(&self) -> usize {
        let mut service = self.owner.service().unwrap();
        let grants = service.grants(&self.owner.key, None, None).unwrap();
        grants.len()
    }

    /// The machine is gone: another one starts over the same files.
    fn on_another_machine(&self, storage: &str) -> Instance {
        let instance = self.site.start_on(1, storage).unwrap();
        self.site.lead_to(&instance).unwrap();
        instance
    }
}

fn give(holder: &Person, more: &[&str]) -> Ran {
    let arguments = [&["recover", "give"], more].concat();
    holder.bield(&arguments).unwrap()
}

fn error(ran: &Ran) -> (i32, String) {
    let code = ran.value["error"]["code"].as_str().unwrap_or_default();
    (ran.code, code.to_owned())
}

#[test]
fn three_of_five_holders_bring_a_lost_service_back_and_two_or_strangers_do_not() {
    let (scene, instance) = Scene::new();
    // Before there are shares, doctor says so as loudly as what passed.
    let doctor = scene.owner.does(&["doctor"]).unwrap().to_string();
    assert!(doctor.contains("nobody could recover it"), "{doctor}");
    let strangers = scene
        .owner
        .bield(&["recover", "make", "--threshold", "1", "--holder", "me"]);
    assert_eq!(error(&strangers.unwrap()), (1, "not-administrator".into()));
    assert_eq!(scene.make_shares().code, 0);
    let shares = scene.take_shares();
    assert_eq!(
        error(&scene.owner.bield(&["recover", "take"]).unwrap()),
        (1, "not-holder".into())
    );

    // Rehearsed on the running service: nothing changes.
    let before = scene.owner.service().unwrap().inspect().unwrap().size;
    for (number, holder) in scene.holders.iter().take(THRESHOLD).enumerate() {
        let ran = give(holder, &["--rehearse"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.value["opened"], number + 1 == THRESHOLD, "{ran:?}");
    }
    assert_eq!(
        scene.owner.service().unwrap().inspect().unwrap().size,
        before
    );
    // A share is for recovery only when somebody recovers: it does not leave its home otherwise.
    let ran = give(&scene.holders[0], &[]);
    assert!(
        ran.code == 1 && ran.message().contains("does not wait for shares"),
        "{ran:?}"
    );

    scene.owner.grant(&scene.package, &scene.user).unwrap();
    let (grants, service) = (scene.grants(), scene.owner.service().unwrap().principal());
    let seen = scene.owner.home.head().unwrap().unwrap();
    instance.power_off().unwrap();

    let instance = scene.on_another_machine("state");
    assert_eq!(instance.state(), "recovering");
    let (status, said) = instance.readyz().unwrap();
    assert!(status == 503 && said.contains("recovering"), "{said}");
    assert!(scene.owner.service().is_err());
    let doctor = scene.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.value.to_string().contains("recover"), "{doctor:#?}");
    let status = scene.holders[0].does(&["recover", "status"]).unwrap();
    assert_eq!(status["state"], "recovering");
    assert_eq!(status["threshold"], THRESHOLD);

    // Altered, and not the giver's: refused one by one, and they take nobody's place.
    let mut altered = fs::read(&shares[0]).unwrap();
    let at = altered.iter().rposition(u8::is_ascii_hexdigit).unwrap();
    altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
    let file = scene.holders[0].home.path().join("altered.share");
    fs::write(&file, altered).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let ran = give(&scene.holders[0], &["--share", file.to_str().unwrap()]);
    assert_ne!(ran.code, 0, "{ran:?}");
    for holder in &scene.holders[..THRESHOLD - 1] {
        let ran = give(holder, &[]);
        assert!(ran.code == 0 && ran.value["opened"] == false, "{ran:?}");
    }
    // The same holder twice is not two.
    let ran = give(&scene.holders[0], &[]);
    assert!(ran.code == 0 && ran.value["opened"] == false, "{ran:?}");
    assert_eq!(instance.state(), "recovering");

    let ran = give(&scene.holders[THRESHOLD], &[]);
    assert!(ran.code == 0 && ran.value["opened"] == true, "{ran:?}");
    assert_eq!(
        ran.value["records_lost"],
        serde_json::Value::Null,
        "{ran:?}"
    );
    instance
        .becomes("serving", std::time::Duration::from_secs(20))
        .unwrap();

    // Everybody who knew it goes on: the same service, all grants, and a log that says who recovered it.
    assert_eq!(scene.grants(), grants);
    let session = scene.owner.service().unwrap();
    assert_eq!(session.principal(), service);
    assert_ne!(session.fresh().head.origin(), seen.origin());
    drop(session);
    scene.user.service().unwrap();
    scene.owner.grant(&scene.package, &scene.user).unwrap();
    let audit = scene.owner.does(&["audit"]).unwrap();
    assert!(
        audit["entries"].as_array().unwrap().len() >= grants,
        "{audit:#}"
    );
    let offline = scene
        .owner
        .bield(&["audit", "--log", instance.storage.to_str().unwrap()])
        .unwrap();
    assert_eq!(offline.code, 0, "{offline:?}");
    assert_eq!(
        offline.value["epochs"].as_array().unwrap().len(),
        2,
        "{offline:?}"
    );

    // It starts again by itself on its new machine.
    instance.power_off().unwrap();
    let instance = scene.on_another_machine("state");
    assert_eq!(instance.state(), "serving");
    assert_eq!(scene.grants(), grants + 1);
}

#[test]
fn who_saw_more_than_was_recovered_is_told_how_much_is_gone_and_goes_on_by_hand() {
    let (scene, instance) = Scene::new();
    assert_eq!(scene.make_shares().code, 0);
    scene.take_shares();
    scene.user.service().unwrap();
    instance.stop().unwrap();
    scene.site.copy("state", "backup").unwrap();
    let kept = scene.owner.home.head().unwrap().unwrap().size();

    let instance = scene.site.start("state").unwrap();
    let late = scene.site.person("late").unwrap();
    let grant = scene.owner.grant(&scene.package, &late).unwrap();
    scene.owner.revoke(&grant).unwrap();
    let seen = scene.owner.home.head().unwrap().unwrap().size();
    assert!(seen > kept);
    instance.power_off().unwrap();

    // Only yesterday's copy of the files is left.
    let instance = scene.on_another_machine("backup");
    for holder in &scene.holders[..THRESHOLD] {
        assert_eq!(give(holder, &[]).code, 0);
    }
    instance
        .becomes("serving", std::time::Duration::from_secs(20))
        .unwrap();
    // Whoever saw no more goes on without a word.
    scene.user.service().unwrap();

    let refused = scene.owner.service().map(drop).unwrap_err();
    assert_eq!(refused.code(), Some("recovered-from-less"), "{refused}");
    let found = scene.site.person("fresh").unwrap();
    drop(found.service().unwrap());
    let doctor = scene.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1, "{doctor:?}");
    let text = doctor.value.to_string();
    assert!(
        text.contains("RECOVERED") && text.contains(" gone, and"),
        "{text}"
    );
    let giver = scene.holders[0].principal().to_string();
    assert!(
        text.contains(&giver),
        "it is not said whose shares did it: {text}"
    );
    // Not as another service, and not by itself: by hand.
    let session = scene.user.service().unwrap();
    let service = session.principal().to_string();
    drop(session);
    assert_eq!(
        scene
            .owner
            .bield(&["doctor", "--accept-service", &service])
            .unwrap()
            .code,
        1
    );
    assert!(scene.owner.service().is_err());
    let accepted = scene.owner.bield(&["doctor", "--accept-recovery"]).unwrap();
    assert_eq!(accepted.code, 0, "{accepted:?}");
    scene.owner.service().unwrap();
    // It serves on: being ahead of a recovery stops nobody.
    assert_eq!(instance.state(), "serving");
}

#[test]
fn shares_that_were_replaced_recover_nothing() {
    let (scene, instance) = Scene::new();
    assert_eq!(scene.make_shares().code, 0);
    let first = scene.take_shares();
    assert_eq!(scene.make_shares().code, 0);
    let second = scene.take_shares();
    assert_ne!(first, second);
    instance.power_off().unwrap();
    let instance = scene.on_another_machine("state");
    for (holder, share) in scene.holders.iter().zip(&first) {
        let ran = give(holder, &["--share", share.to_str().unwrap()]);
        assert_eq!(error(&ran), (1, "other-share".into()), "{ran:?}");
    }
    // Those of another service neither.
    let (other, _elsewhere) = Scene::new();
    assert_eq!(other.make_shares().code, 0);
    let foreign = other.take_shares();
    let ran = give(
        &scene.holders[0],
        &["--share", foreign[0].to_str().unwrap()],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(instance.state(), "recovering");
}
