//! The log as its readers see it: owners their own entries, operators all records and what none of them says.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bield_capsule::ledger_file::{FRAME_HEAD_BYTES, FileReader, Item, encode_frame};
use bield_end_to_end::{Person, Plan, Site, tiny_model};
use serde_json::Value;

fn events(audit: &Value) -> Vec<String> {
    let entries = audit["entries"].as_array().unwrap();
    let event = |entry: &Value| entry["event"].as_str().unwrap().to_owned();
    entries.iter().map(event).collect()
}

/// Whether the text names this anywhere.
fn names(value: &Value, what: &str) -> bool {
    value.to_string().contains(what)
}

fn logs(storage: &Path) -> Vec<PathBuf> {
    let files = bield_end_to_end::files(storage).unwrap();
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("log-")
    };
    files.into_iter().filter(is_log).collect()
}

#[test]
fn owners_see_and_verify_their_own_entries_and_nobody_elses() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let person = |name: &str| site.person(name).unwrap();
    let (ada, bea, user) = (person("ada"), person("bea"), person("user"));
    let publish = |owner: &Person, name: &str| {
        let model = tiny_model(name);
        let package = owner.pack(name, &model).unwrap();
        owner.offer(&package, &model).unwrap();
        package
    };
    let (of_ada, of_bea) = (publish(&ada, "of-ada"), publish(&bea, "of-bea"));
    let grant = ada.grant(&of_ada, &user).unwrap();
    bea.grant(&of_bea, &user).unwrap();
    ada.revoke(&grant).unwrap();

    let audit = ada.does(&["audit"]).unwrap();
    assert_eq!(
        events(&audit),
        ["registered", "package-put", "granted", "revoked"]
    );
    assert_eq!(
        (&audit["verified"], &audit["count"]),
        (&true.into(), &4.into())
    );
    assert!(names(&audit, &of_ada.digest.to_string()));
    for foreign in [
        of_bea.digest.to_string(),
        bea.principal().to_string(),
        "of-bea".into(),
    ] {
        assert!(!names(&audit, &foreign), "{foreign}: {audit:#}");
    }
    let of_bea = bea.does(&["audit"]).unwrap();
    assert_eq!(events(&of_bea), ["registered", "package-put", "granted"]);
    assert_ne!(of_bea["digest"], audit["digest"]);
    // Nobody who is not registered has one.
    assert_eq!(user.bield(&["audit"]).unwrap().code, 1);

    // It goes on over a restart, and what was seen before is compared.
    instance.power_off().unwrap();
    let instance = site.start("state").unwrap();
    ada.grant(&of_ada, &user).unwrap();
    let more = ada.does(&["audit", "--last", "1"]).unwrap();
    assert_eq!(events(&more), ["granted"]);
    assert_eq!(
        (&more["count"], &more["seen_before"]),
        (&5.into(), &4.into())
    );
    // A home that has seen another one says so, and believes nothing of it.
    let kept = bield_end_to_end::files(&ada.home.path().join("logs")).unwrap();
    let file = kept
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "audit"));
    let file = file.expect("what the home has seen of its audit");
    let text = fs::read_to_string(file).unwrap();
    let digest = more["digest"].as_str().unwrap();
    assert!(text.contains(digest), "{text}");
    fs::write(file, text.replace(digest, &"ab".repeat(32))).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let altered = ada.bield(&["audit"]).unwrap();
    assert_eq!(altered.code, 1, "{altered:?}");
    assert_eq!(altered.value["error"]["code"], "audit-altered");
    instance.stop().unwrap();
}

#[test]
fn a_copied_log_is_verified_by_anybody_without_keys_and_each_altered_record_is_named() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let owner = site.person("owner").unwrap();
    let model = tiny_model("audited");
    let package = owner.pack("audited", &model).unwrap();
    owner.offer(&package, &model).unwrap();
    for _ in 0..5 {
        owner.grant(&package, &owner).unwrap();
    }
    let seen = owner.home.head().unwrap().unwrap().size();
    // While it runs: a copy is all that an auditor needs.
    site.copy("state", "copy").unwrap();
    let copy = site.storage("copy");
    let auditor = site.person("auditor").unwrap();
    let verify = |who: &Person| {
        let arguments = [Path::new("audit"), Path::new("--log"), copy.as_path()];
        who.bield(&arguments).unwrap()
    };
    // With the log alone: neither root nor snapshots nor anything that opens it.
    for file in bield_end_to_end::files(&copy).unwrap() {
        if !logs(&copy).contains(&file) {
            fs::remove_file(file).unwrap();
        }
    }
    let verified = verify(&auditor);
    assert_eq!(verified.code, 0, "{verified:?}");
    let records = verified.value["epochs"][0]["size"].as_u64().unwrap();
    assert_eq!(records, seen);
    assert_eq!(verified.checks("seen")[0].0, "not_checked");
    // Who has seen the service compares: it is the very log.
    let verified = verify(&owner);
    assert_eq!(verified.checks("seen")[0].0, "passed", "{verified:?}");

    // One byte of each record, and what is found.
    let log = logs(&copy).remove(0);
    let good = fs::read(&log).unwrap();
    let mut reader = FileReader::new();
    reader.push(&good);
    let mut places = Vec::new();
    while let item @ (Item::Head(_) | Item::Record { .. }) = reader.next_item() {
        if let Item::Record {
            index,
            offset,
            record,
        } = item
        {
            places.push((index, usize::try_from(offset).unwrap(), record));
        }
    }
    assert_eq!(places.len() as u64, records);
    for (index, offset, record) in &places {
        // By somebody who mends the checksum too: a signature is not mended.
        let (mut forged, mut frame) = (record.clone(), Vec::new());
        forged[record.len() / 2] ^= 1;
        encode_frame(*index, &forged, &mut frame);
        let end = offset + frame.len();
        fs::write(&log, [&good[..*offset], &frame[..], &good[end..]].concat()).unwrap();
        let refused = verify(&auditor);
        assert_eq!(refused.code, 1, "record {index}: {refused:?}");
        let (outcome, have) = refused.checks("records").remove(0);
        let named = format!("record {index} ");
        assert!(
            outcome == "failed" && have.contains(&named),
            "record {index}: {have}"
        );
    }
    for (index, offset, record) in &places {
        let at = offset + FRAME_HEAD_BYTES + record.len() / 2;
        let mut altered = good.clone();
        altered[at] ^= 1;
        fs::write(&log, altered).unwrap();
        let refused = verify(&owner);
        if index + 1 == records {
            // The last one looks like a write that did not end; who saw it knows better.
            let (outcome, have) = refused.checks("seen").remove(0);
            assert_eq!((refused.code, outcome.as_str()), (1, "failed"), "{have}");
            assert!(have.contains("records are gone"), "{have}");
            continue;
        }
        assert_eq!(refused.code, 1, "record {index}: {refused:?}");
        let (outcome, have) = refused.checks("records").remove(0);
        assert_eq!(outcome, "failed", "record {index}: {have}");
        let named = format!("record {index}");
        assert!(have.contains(&named), "record {index}: {have}");
    }
    instance.stop().unwrap();
}
