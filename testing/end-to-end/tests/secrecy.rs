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
