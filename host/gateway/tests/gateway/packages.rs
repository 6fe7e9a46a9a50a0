//! Uploads and downloads of sealed packages.

use std::io::Cursor;

use bield_envelope::{Digest, Seeded, SigningKey};
use bield_package::tensor::{ElementType, TensorSpec};
use bield_package::{CHUNK_BYTES_MIN, ManifestDraft, ModelFormat, PackageKey, pack};

use crate::support::Gateway;

fn package(model: &[u8]) -> (Digest, Vec<u8>) {
    let mut entropy = Seeded::new(9);
    let output = TensorSpec::new("label".to_owned(), ElementType::F32, vec![Some(1)]).unwrap();
    let draft = ManifestDraft {
        name: "demo".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        format: ModelFormat::Onnx,
        inputs: vec![],
        outputs: vec![output],
        golden: vec![],
        chunk_bytes: CHUNK_BYTES_MIN,
        function: None,
    };
    let owner = SigningKey::generate(&mut entropy);
    let key = PackageKey::generate(&mut entropy);
    let mut bytes = Vec::new();
    let mut model = Cursor::new(model);
    let summary = pack(
        &mut model,
        draft,
        &owner,
        &key,
        &mut entropy,
        &mut bytes,
        &mut |_, _| {},
    )
    .unwrap();
    (summary.digest, bytes)
}

#[test]
fn a_package_is_stored_under_its_digest_and_comes_back() {
    let gateway = Gateway::start("", &[]);
    let (digest, bytes) = package(&[5; 5000]);
    let path = format!("/v1/packages/{digest}");
    let absent = gateway.get(&path);
    assert_eq!(
        (absent.status, absent.error_code().as_str()),
        (404, "no-such-package")
    );
    assert_eq!(gateway.put(&path, &bytes).status, 201);
    assert_eq!(
        gateway.put(&path, &bytes).status,
        200,
        "uploading again changes nothing"
    );
    let stored = gateway.get(&path);
    assert_eq!((stored.status, stored.body == bytes), (200, true));
    assert_eq!(
        stored.headers["content-length"],
        bytes.len().to_string().as_str()
    );
    let names: Vec<_> = gateway
        .packages()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [format!("{digest}.bield").as_str()]);
}

#[test]
fn altered_chunks_do_not_replace_a_package() {
    let gateway = Gateway::start("", &[]);
    let (digest, bytes) = package(&[5; 5000]);
    let path = format!("/v1/packages/{digest}");
    assert_eq!(gateway.put(&path, &bytes).status, 201);
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    let answer = gateway.put(&path, &altered);
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (409, "exists")
    );
    assert!(gateway.get(&path).body == bytes, "the first one stays");
    // The operator's way out: a removed file may be uploaded anew. One that is cut short is no package.
    let file = gateway.packages().join(format!("{digest}.bield"));
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(gateway.put(&path, &bytes).status, 201);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(gateway.put(&path, &bytes).status, 201);
    assert_eq!(gateway.packages().read_dir().unwrap().count(), 1);
}

#[test]
fn of_two_different_uploads_at_once_one_is_stored() {
    let gateway = Gateway::start("", &[]);
    let (digest, bytes) = package(&[5; 5000]);
    let path = format!("/v1/packages/{digest}");
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut statuses = std::thread::scope(|scope| {
        let uploads =
            [&bytes, &altered].map(|body| scope.spawn(|| gateway.put(&path, body).status));
        uploads.map(|upload| upload.join().unwrap())
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[test]
fn a_wrong_upload_is_refused_and_leaves_nothing() {
    let gateway = Gateway::start("", &[]);
    let (digest, bytes) = package(&[5; 5000]);
    let path = format!("/v1/packages/{digest}");
    let other = format!("/v1/packages/{}", Digest::from_bytes([7; 32]));
    let refusals = [
        (&path, &b"not a package"[..], "not-a-package"),
        (&path, &b""[..], "not-a-package"),
        (&other, &bytes[..], "other-digest"),
        (&path, &bytes[..bytes.len() - 1], "incomplete"),
        (&path, &[&bytes[..], b"x"].concat(), "incomplete"),
    ];
    for (path, body, code) in refusals {
        let answer = gateway.put(path, body);
        assert_eq!((answer.status, answer.error_code().as_str()), (422, code));
    }
    assert_eq!(gateway.packages().read_dir().unwrap().count(), 0);
    assert_eq!(gateway.put(&path, &bytes).status, 201);
}

#[test]
fn names_other_than_digests_are_refused() {
    let gateway = Gateway::start("", &[]);
    let upper = "AB".repeat(32);
    for name in ["demo", "..%2f..%2fetc%2fpasswd", &upper, &"0".repeat(63)] {
        let answer = gateway.get(&format!("/v1/packages/{name}"));
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "not-a-digest"),
            "{name}"
        );
    }
}

#[test]
fn a_vanished_packages_directory_is_reported_and_recovers() {
    let gateway = Gateway::start("", &[]);
    let (digest, bytes) = package(&[5; 500]);
    let path = format!("/v1/packages/{digest}");
    std::fs::remove_dir(gateway.packages()).unwrap();
    let answer = gateway.put(&path, &bytes);
    assert_eq!((answer.status, answer.error_code().as_str()), (500, "disk"));
    std::fs::create_dir(gateway.packages()).unwrap();
    assert_eq!(gateway.put(&path, &bytes).status, 201);
}
