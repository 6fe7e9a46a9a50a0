//! A program's files: appends, crashes, full disks, names and owners.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn opened(path: &Path) -> Directory {
    Directory::open(path).unwrap()
}

fn append(directory: &Directory, file: &str, offset: u64, bytes: &[u8]) -> bool {
    directory.turn().append(&name(file), offset, bytes).is_ok()
}

#[test]
fn an_append_cuts_what_lies_behind_its_offset() {
    let at = tempfile::tempdir().unwrap();
    let directory = opened(at.path());
    let log = name("log-0");
    assert!(append(&directory, "log-0", 0, b"first"));
    // A torn append: part of it is there, and nobody was told it is stored.
    assert!(append(&directory, "log-0", 5, b" torn and longer"));
    assert!(append(&directory, "log-0", 5, b" second"));
    assert_eq!(directory.read(&log, 0, 100).unwrap(), b"first second");
    assert_eq!(directory.read(&log, 6, 3).unwrap(), b"sec");
    assert_eq!(directory.read(&log, 12, 3).unwrap(), b"");
    assert_eq!(directory.read(&log, 1 << 40, 3).unwrap(), b"");
    assert_eq!(directory.read(&name("none"), 0, 3).unwrap(), b"");
    assert_eq!(directory.list().unwrap(), [(log, 12)]);
}

#[test]
fn an_append_never_leaves_a_hole() {
    let at = tempfile::tempdir().unwrap();
    let directory = opened(at.path());
    for there in [false, true] {
        let gap = directory.turn().append(&name("log"), 4, b"x");
        assert!(matches!(gap, Err(DirectoryError::Gap)), "{there}");
        assert!(append(&directory, "log", 0, b"123"));
    }
    assert_eq!(directory.read(&name("log"), 0, 9).unwrap(), b"123");
}

#[test]
fn a_directory_of_another_user_is_not_taken() {
    check_owner(1000, 1000).unwrap();
    check_owner(0, 1000).unwrap();
    let refused = check_owner(1001, 1000).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("uid 1001"), "{refused}");
    let at = tempfile::tempdir().unwrap();
    let user = rustix::process::geteuid();
    if user.is_root() {
        let other = rustix::process::Uid::from_raw(1001);
        rustix::fs::chown(at.path(), Some(other), None).unwrap();
        let refused = Directory::open(at.path()).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    }
}

#[test]
fn directories_made_for_it_are_made_to_last_too() {
    let at = tempfile::tempdir().unwrap();
    let deep = at.path().join("a/b/c/storage");
    let made = missing(&deep).unwrap();
    let expected = ["a/b/c", "a/b", "a", ""].map(|name| at.path().join(name));
    assert!(
        made.iter()
            .zip(&expected)
            .all(|(made, expected)| made == expected)
    );
    assert_eq!(made.len(), 4);
    let directory = opened(&deep);
    assert!(append(&directory, "log", 0, b"x"));
    assert_eq!(missing(&deep).unwrap(), [at.path().join("a/b/c")]);
}

#[test]
fn files_and_directory_are_this_users_alone() {
    let at = tempfile::tempdir().unwrap();
    let (fresh, loose) = (at.path().join("a/fresh"), at.path().join("loose"));
    std::fs::create_dir(&loose).unwrap();
    std::fs::set_permissions(&loose, Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for path in [fresh, loose] {
        let directory = opened(&path);
        assert!(append(&directory, "log", 0, b"x"));
        directory.turn().replace(&name("root"), b"y").unwrap();
        assert_eq!(mode(&path), 0o700);
        for file in ["log", "root", LOCK] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
    }
}

#[test]
fn links_directories_and_other_names_are_not_touched() {
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("secret"), b"host file").unwrap();
    let state = at.path().join("state");
    let directory = opened(&state);
    std::os::unix::fs::symlink("../secret", state.join("link")).unwrap();
    std::fs::create_dir(state.join("inner")).unwrap();
    std::fs::write(state.join("Other.txt"), b"z").unwrap();
    assert_eq!(directory.list().unwrap(), []);
    assert!(directory.read(&name("link"), 0, 10).is_err());
    assert!(directory.read(&name("inner"), 0, 10).is_err());
    assert!(!append(&directory, "link", 0, b"x"));
    assert!(!append(&directory, "inner", 0, b"x"));
    // Replacing takes the link's place and leaves its target alone.
    directory.turn().replace(&name("link"), b"mine").unwrap();
    assert_eq!(directory.read(&name("link"), 0, 10).unwrap(), b"mine");
    assert_eq!(
        std::fs::read(at.path().join("secret")).unwrap(),
        b"host file"
    );
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one() {
    let at = tempfile::tempdir().unwrap();
    let directory = opened(at.path());
    directory.turn().replace(&name("root"), b"old").unwrap();
    // A directory in the temporary file's place: works as a full disk does, for root too.
    std::fs::create_dir(at.path().join(HALF)).unwrap();
    assert!(directory.turn().replace(&name("root"), b"new").is_err());
    assert_eq!(directory.read(&name("root"), 0, 9).unwrap(), b"old");
    std::fs::remove_dir(at.path().join(HALF)).unwrap();
    directory.turn().replace(&name("root"), b"new").unwrap();
    assert_eq!(directory.read(&name("root"), 0, 9).unwrap(), b"new");

    directory.turn().remove(&name("root")).unwrap();
    directory.turn().remove(&name("root")).unwrap();
    assert_eq!(directory.list().unwrap(), []);
}

#[test]
fn what_a_crash_left_half_replaced_is_gone_at_the_next_start() {
    let at = tempfile::tempdir().unwrap();
    opened(at.path())
        .turn()
        .replace(&name("root"), b"old")
        .unwrap();
    std::fs::write(at.path().join(HALF), b"ne").unwrap();
    let directory = opened(at.path());
    assert!(!at.path().join(HALF).exists());
    assert_eq!(directory.list().unwrap(), [(name("root"), 3)]);
}

#[test]
fn one_owner_at_a_time() {
    let at = tempfile::tempdir().unwrap();
    let first = opened(at.path());
    let second = Directory::open(at.path()).err().unwrap();
    assert_eq!(second.kind(), ErrorKind::ResourceBusy);
    drop(first);
    opened(at.path());
}

#[test]
fn an_owner_that_is_just_leaving_is_waited_for() {
    let at = tempfile::tempdir().unwrap();
    let first = opened(at.path());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Directory::open(at.path()).is_ok());
        drop(first);
        assert!(second.join().unwrap());
    });
}

/// Runs one test of this file in a process of its own, with `prefix` before it in a shell.
fn apart(test: &str, prefix: &str, at: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{prefix} exec \"$0\" --exact --ignored --nocapture \"$1\"");
    command
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("storage::directory::tests::{test}"))
        .env("BIELD_DIRECTORY", at);
    command
}

/// The directory that a process started by [`apart`] works on.
fn given() -> Directory {
    opened(Path::new(&std::env::var_os("BIELD_DIRECTORY").unwrap()))
}

/// Bytes of the frame with this number.
fn frame(number: u64) -> Vec<u8> {
    let length = usize::try_from(number % 700).unwrap();
    let mut frame = vec![u8::try_from(number % 251).unwrap(); length];
    frame.extend(number.to_be_bytes());
    frame
}

#[test]
#[ignore = "runs as a process of its own, killed by the next test"]
fn appends_until_it_is_killed() {
    let directory = given();
    let (mut offset, mut number) = (0, 0);
    loop {
        let bytes = frame(number);
        directory
            .turn()
            .append(&name("log"), offset, &bytes)
            .unwrap_or_else(|_| panic!("not stored"));
        offset += bytes.len() as u64;
        directory
            .turn()
            .replace(&name("head"), &number.to_be_bytes())
            .unwrap();
        println!("stored {number}");
        number += 1;
    }
}

#[test]
fn a_killed_host_loses_nothing_it_said_is_stored() {
    let at = tempfile::tempdir().unwrap();
    for kill_after in [1, 7, 40] {
        let mut child = apart("appends_until_it_is_killed", "", at.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut numbers = said
            .by_ref()
            .filter_map(|line| line.unwrap().split_once("stored ")?.1.parse::<u64>().ok());
        let heard = numbers.by_ref().take_while(|number| *number < kill_after);
        assert_eq!(heard.count() as u64, kill_after);
        child.kill().unwrap();
        let last = numbers.last().unwrap_or(kill_after);
        child.wait().unwrap();

        let directory = opened(at.path());
        let expected: Vec<u8> = (0..=last).flat_map(frame).collect();
        let log = directory.read(&name("log"), 0, 64 << 20).unwrap();
        assert!(log.starts_with(&expected), "killed after {last}");
        let head = directory.read(&name("head"), 0, 9).unwrap();
        let head = u64::from_be_bytes(head.try_into().unwrap());
        assert!(head == last || head == last + 1, "{head} after {last}");
        let files = directory.list().unwrap().len();
        assert_eq!(files, 2);
    }
}

#[test]
#[ignore = "runs as a process of its own, with a limit on files' sizes, by the next test"]
fn meets_a_full_disk() {
    let directory = given();
    let log = name("log");
    assert!(append(&directory, "log", 0, &[1; 6000]));
    assert!(
        !append(&directory, "log", 6000, &[2; 6000]),
        "beyond the limit"
    );
    assert!(directory.turn().replace(&name("root"), &[3; 9000]).is_err());
    assert!(
        !directory.path.join(HALF).exists(),
        "its bytes are given back"
    );
    // Part of the refused bytes is behind the end; the next append cuts them off.
    assert!(directory.read(&log, 0, 9000).unwrap().len() > 6000);
    assert!(append(&directory, "log", 6000, b"fits"));
    assert_eq!(directory.read(&log, 6000, 9000).unwrap(), b"fits");
    println!("it went on");
}

#[test]
fn a_full_disk_refuses_and_the_next_append_goes_on() {
    let at = tempfile::tempdir().unwrap();
    // 16 blocks of 512 bytes; the signal that comes with the limit is not wanted.
    let output = apart(
        "meets_a_full_disk",
        "trap '' XFSZ; ulimit -f 16;",
        at.path(),
    )
    .output()
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("it went on"),
        "{said}"
    );
}
