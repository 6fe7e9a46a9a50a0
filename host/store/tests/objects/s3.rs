//! The same on S3, where the environment names one, and what the program says of one it cannot use.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{
    Place, everything_acknowledged_outlives_kills, of_two_programs_the_slower_one_is_fenced,
};

impl Place {
    /// A prefix of its own in the bucket that the environment names.
    fn s3(test: &str) -> Self {
        let named =
            |name| std::env::var(name).unwrap_or_else(|_| panic!("set {name}: see this file"));
        let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            url: format!(
                "s3://{}/{test}-{}",
                named("BIELD_S3_BUCKET"),
                unique.as_nanos()
            ),
            environment: vec![("AWS_ENDPOINT", named("BIELD_S3_ENDPOINT"))],
        }
    }

    /// What the program says when it does not start.
    fn refusal(&self, data: &Path) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.command(data).output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }
}

#[test]
#[ignore = "needs an S3 endpoint: see the module's text"]
fn everything_acknowledged_outlives_kills_on_s3() {
    everything_acknowledged_outlives_kills(&Place::s3("kills"));
}

#[test]
#[ignore = "needs an S3 endpoint: see the module's text"]
fn of_two_programs_on_s3_the_slower_one_is_fenced() {
    of_two_programs_the_slower_one_is_fenced(&Place::s3("fence"));
}

#[test]
#[ignore = "needs an S3 endpoint: see the module's text"]
fn wrong_credentials_and_no_bucket_are_told_apart() {
    let data = tempfile::tempdir().unwrap();
    let mut place = Place::s3("refused");
    place
        .environment
        .push(("AWS_SECRET_ACCESS_KEY", "wrong".to_owned()));
    let (code, said) = place.refusal(data.path());
    assert!(
        code == Some(2) && said.contains("AWS_SECRET_ACCESS_KEY"),
        "{code:?} {said}"
    );
    let mut place = Place::s3("refused");
    place.url = "s3://there-is-no-such-bucket/prefix".to_owned();
    let (code, said) = place.refusal(data.path());
    assert!(
        code == Some(2) && said.contains("create the bucket"),
        "{code:?} {said}"
    );
}

#[test]
fn an_endpoint_that_does_not_answer_is_told_within_seconds() {
    let data = tempfile::tempdir().unwrap();
    // A port that nobody listens on: bound once, then given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let environment = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ];
    let place = Place {
        url: "s3://bucket/prefix".to_owned(),
        environment: environment.to_vec(),
    };
    let began = Instant::now();
    let (code, said) = place.refusal(data.path());
    assert!(
        code == Some(2) && said.contains("AWS_ENDPOINT"),
        "{code:?} {said}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}
