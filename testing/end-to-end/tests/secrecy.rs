//! What the host holds after calls: nothing of the people's. And that the search for it can fail.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::Path;

use bield_end_to_end::{Canary, Package, Person, Shared, Stack, files, numbers, scan, tiny_model};
use bield_sdk::Randomness;

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// Where a host keeps what it has; `taps` and `record` are what it carries.
const PLACES: [&str; 5] = ["packages", "storage", "logs", "record", "taps"];

/// Calls twice, is refused once, and returns every secret that took part.
fn busy_day(stack: &Stack, day: &str) -> (Package, Vec<Canary>) {
    let name = |who: &str| format!("{who}-{day}");
    let owner = stack.person(&name("owner")).unwrap();
    let user = stack.person(&name("user")).unwrap();
    let stranger = stack.person(&name("stranger")).unwrap();
    let note = hex::encode(random::<48>());
    let model = tiny_model(&note);
    let package = owner.publish(&name("package"), &model).unwrap();
    owner.grant(&package, &user).unwrap();

    let mut canaries = vec![
        Canary::new("the model's weights", &model),
        Canary::new("the model's documentation", note.as_bytes()),
        Canary::new("the package key", package.key.seed().expose()),
        seed("the owner's seed", &owner),
        seed("the user's seed", &user),
    ];
    for turn in ["first", "second"] {
        let request = numbers(8);
        let secret = request[0].data().to_vec();
        let answered = user.call(&package, request).unwrap().unwrap();
        canaries.push(Canary::new(&format!("the {turn} request"), &secret));
        let answer = answered.tensors[0].data();
        canaries.push(Canary::new(&format!("the {turn} answer"), answer));
    }
    let request = numbers(8);
    canaries.push(Canary::new("the refused request", request[0].data()));
    stranger.call(&package, request).unwrap().unwrap_err();
    (package, canaries)
}

fn seed(name: &str, person: &Person) -> Canary {
    Canary::new(name, person.key.seed().expose())
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    use rand_core::Rng as _;
    let mut bytes = [0; BYTES];
    Randomness.fill_bytes(&mut bytes);
    bytes
}

#[test]
fn nothing_in_clear_is_written_logged_or_carried() {
    let stack = STACK.get();
    let (package, canaries) = busy_day(&stack, "clear");
    let findings = scan(stack.host(), &canaries).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");

    // The search reaches what it must reach: the package's digest is public, and travels and is stored.
    let public = [Canary::new("the digest", package.digest.as_bytes())];
    let found = scan(stack.host(), &public).unwrap();
    for place in ["packages", "record", "taps/http"] {
        let place = stack.host().join(place).display().to_string();
        let seen = |file: &Path| file.display().to_string().starts_with(&place);
        assert!(
            found.iter().any(|finding| seen(&finding.file)),
            "{place}: {found:#?}"
        );
    }
    // And the logs are those of this day: they name the package in short.
    let said = stack.gateway.process.said();
    assert!(said.contains(&package.digest.short()), "{said}");
}

/// What the key service lets out: its files, their names, its log, its counters, its traffic. Who owns and who may call
/// what stands in none of it.
#[test]
fn the_key_service_names_no_principal_no_package_and_no_key_outside() {
    let stack = STACK.get();
    let owner = stack.person("owner-names").unwrap();
    let (user, stranger) = (
        stack.person("user-names").unwrap(),
        stack.person("stranger-names").unwrap(),
    );
    // As long and as telling as names can be.
    let name = format!("package-{}", hex::encode(random::<24>()));
    let group = format!("group-{}", hex::encode(random::<24>()));
    let package = owner.publish(&name, &tiny_model(&name)).unwrap();
    let grant = owner.grant(&package, &user).unwrap();
    let member = user.principal().to_string();
    owner
        .does(&["group", "put", &group, "--member", &member])
        .unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    stranger.call(&package, numbers(1)).unwrap().unwrap_err();
    owner.revoke(&grant).unwrap();
    owner
        .does(&["rotate", "audience", &name, "--at-once"])
        .unwrap();
    owner.does(&["audit"]).unwrap();

    // Pages that a host, or whoever scrapes it, can read at any time.
    let pages = tempfile::tempdir().unwrap();
    for page in ["metrics", "v1/status", "readyz"] {
        let url = format!("{}/{page}", stack.url());
        let text = ureq::get(&url)
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        assert!(!text.is_empty(), "{page}");
        fs::write(pages.path().join(page.replace('/', "-")), text).unwrap();
    }
    let canaries = [
        Canary::new("the owner", owner.principal().as_bytes()),
        Canary::new("the user", user.principal().as_bytes()),
        Canary::new("the stranger", stranger.principal().as_bytes()),
        Canary::new("the package's name", &name.as_bytes()["package-".len()..]),
        Canary::new("the group's name", &group.as_bytes()["group-".len()..]),
        Canary::new("the package key", package.key.seed().expose()),
        Canary::new("the grant", grant.digest().as_bytes()),
        Canary::new("the grant's id", &grant.id),
    ];
    assert_eq!(scan(pages.path(), &canaries).unwrap(), []);
    for place in ["storage", "logs", "taps"] {
        let found = scan(&stack.host().join(place), &canaries).unwrap();
        // Uploaded packages carry their signed public header, which names owner and package: that is what a gateway
        // stores by. It stands in the HTTP traffic of uploads and nowhere here.
        let found = found
            .iter()
            .filter(|finding| !finding.file.display().to_string().contains("taps/http"));
        assert_eq!(
            found.collect::<Vec<_>>(),
            Vec::<&bield_end_to_end::Finding>::new(),
            "{place}"
        );
    }
    // What passed the program's door, as the gateway's recorder saw it.
    let record = files(&stack.host().join("record")).unwrap();
    let of_keys: Vec<_> = record
        .iter()
        .filter(|file| file.display().to_string().contains("bield-keys"))
        .collect();
    assert!(!of_keys.is_empty(), "{record:?}");
    let found = scan(&stack.host().join("record"), &canaries).unwrap();
    let found = found
        .iter()
        .filter(|finding| of_keys.contains(&&finding.file));
    assert_eq!(found.count(), 0);

    // The digest of a package is what a gateway routes by; the key service's own files do not say even that.
    let digest = [Canary::new("the digest", package.digest.as_bytes())];
    assert_eq!(scan(&stack.host().join("storage"), &digest).unwrap(), []);
}

#[test]
fn the_scan_fails_when_a_canary_is_planted() {
    let stack = STACK.get();
    let (_, canaries) = busy_day(&stack, "planted");
    let scratch = tempfile::tempdir().unwrap();
    for place in PLACES {
        let lies = files(&stack.host().join(place)).unwrap();
        let largest = lies
            .iter()
            .max_by_key(|file| fs::metadata(file).map_or(0, |m| m.len()));
        // A copy, so that the host of the other test stays clean; shortened, so that debug builds stay quick.
        let mut bytes = fs::read(largest.unwrap()).unwrap();
        assert!(!bytes.is_empty(), "nothing in {place}");
        bytes.truncate(64 << 10);
        let clean = scratch.path().join(place);
        fs::write(&clean, &bytes).unwrap();
        assert_eq!(scan(scratch.path(), &canaries).unwrap(), []);

        for canary in &canaries {
            for (form, slip) in canary.slips() {
                let middle = bytes.len() / 2;
                let planted = [&bytes[..middle], &slip[..], &bytes[middle..]].concat();
                fs::write(&clean, planted).unwrap();
                let findings = scan(scratch.path(), std::slice::from_ref(canary)).unwrap();
                let told = findings
                    .iter()
                    .any(|finding| finding.canary == canary.name() && finding.file == clean);
                assert!(
                    told,
                    "{} as {form} in {place} goes unnoticed",
                    canary.name()
                );
            }
        }
        fs::remove_file(&clean).unwrap();
    }
}

#[test]
fn a_canary_in_a_file_name_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let secret = random::<32>();
    fs::write(scratch.path().join(hex::encode(secret)), "").unwrap();
    let findings = scan(scratch.path(), &[Canary::new("a name", &secret)]).unwrap();
    assert!(!findings.is_empty());
}
