//! A real process, killed at any moment, on a real file system.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

const OPTIONS: Options = Options {
    segment_bytes: 20_000,
    ..SMALL
};

/// Not a test by itself: appends and syncs groups until it is killed, and says what is synced.
#[test]
#[ignore = "a role that another test starts"]
fn appender() {
    let path = PathBuf::from(std::env::var_os("TEST_JOURNAL").unwrap());
    let (mut journal, shown) = open(Files::own(&path).unwrap(), OPTIONS).unwrap();
    let mut next = shown.len() as u64;
    println!("\nacknowledged {next}");
    loop {
        let group = records(next..next + 1 + next % 13);
        journal.append(&borrowed(&group)).unwrap();
        next += group.len() as u64;
        if !next.is_multiple_of(3) {
            journal.sync().unwrap();
            println!("acknowledged {next}");
            io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_it_has_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("capsule");
    let mut total = 0;
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "journal::tests::kill::appender",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("TEST_JOURNAL", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        // At least one acknowledgement of its own, then any moment.
        while said.matches("acknowledged").count() < 2 {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        assert!(matches!(
            Files::own(&path),
            Err(crate::disk::FilesError::Owned { .. })
        ));
        std::thread::sleep(Duration::from_micros(round * round * 97));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.read_to_string(&mut said).unwrap();
        let numbers = said
            .lines()
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<usize>().ok());
        let acknowledged = numbers.max().unwrap();

        let options = Options {
            acknowledged: acknowledged as u64,
            ..OPTIONS
        };
        let (journal, shown) = open(Files::own(&path).unwrap(), options).unwrap();
        assert_eq!(shown, records(0..shown.len() as u64));
        assert_eq!(journal.scrub().unwrap().damage, []);
        assert!(acknowledged > total);
        total = acknowledged;
    }
}
