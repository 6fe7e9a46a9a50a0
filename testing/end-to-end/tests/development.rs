//! `bield dev` as its developer meets it on a bad day: ports that are whatever is free, a build that hangs.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bield_end_to_end::{Terminal, wait_until};

/// A function whose build never ends, and neither asks nor is asked.
const HANGS: &str = r#"
[function]
name = "stuck"
version = "0.1.0"
source = "function.wasm"
build = "trap '' TERM; sleep 600 & echo $! > child; echo $$ > shell; wait"
"#;

fn runs(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    // A zombie has ended; whoever inherited it has only not looked yet.
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_build_that_hangs_is_said_and_ended_with_all_it_started() {
    let mut terminal = Terminal::new().unwrap();
    let folder = terminal.folder().to_owned();
    fs::write(folder.join("bield.toml"), HANGS).unwrap();
    terminal
        .begins(&["--function", "."], "is still running after 10 s")
        .unwrap();
    assert!(runs(&folder.join("shell")) && runs(&folder.join("child")));
    let ended = terminal.terminates().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", terminal.said());
    let said = terminal.said();
    assert!(said.trim_end().ends_with("stopped"), "{said}");
    assert!(
        !said.contains("failed"),
        "it was ended, it did not fail: {said}"
    );
    for file in ["shell", "child"] {
        let gone = wait_until(Duration::from_secs(5), || !runs(&folder.join(file)));
        assert!(gone, "the build's {file} still runs");
    }
}

#[test]
fn the_trust_file_names_the_ports_that_were_free() {
    let mut terminal = Terminal::new().unwrap();
    terminal.type_line("bield dev").unwrap();
    let trust = fs::read_to_string(terminal.folder().join(".bield-dev/trust.toml")).unwrap();
    assert!(!trust.contains(":0\""), "{trust}");
    terminal
        .type_line("bield init --trust .bield-dev/trust.toml")
        .unwrap();
    // Over both: evidence from the gateway, a session with the key service.
    terminal.type_line("bield verify").unwrap();
    terminal.type_line("bield status").unwrap();
}
