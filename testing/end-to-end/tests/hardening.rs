//! What programs that serve have given up, as their kernel and their status show it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::fs;
use std::path::Path;

use bield_end_to_end::{Stack, numbers};
use bield_evidence::Protection;
use bield_sdk::{Gateway, Randomness};

#[test]
fn every_thread_of_both_programs_is_confined_and_the_status_says_so() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("confined").unwrap();
    let target = user.target(&package).unwrap();
    let call = || target.call(&user.key, numbers(3), Vec::new(), &mut Randomness);
    call().unwrap();

    for name in ["bield-keys", "bield-runtime"] {
        let pid = stack.gateway.process.child(name).unwrap();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let modes: Vec<String> = threads
            .map(|thread| seccomp_mode(&thread.unwrap().path()))
            .collect();
        // 2 is a filter.
        assert!(
            modes.len() > 1 && modes.iter().all(|mode| mode == "2"),
            "{name}: {modes:?}"
        );
    }

    let status = Gateway::new(&stack.url()).status().unwrap();
    for (report, states) in [
        (&status["key_service"]["report"], Protection::KEY_SERVICE),
        (&status["workers"][0]["report"], Protection::RUNTIME),
    ] {
        let applied: Vec<&str> = report["hardening"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        for word in [
            "no inherited files",
            "not dumpable",
            "listed system calls only",
        ] {
            assert!(applied.contains(&word), "{report}");
        }
        // What it asked for, whatever this machine allows, is what it can be asked for.
        let missing = report["missing"].as_array().unwrap();
        let asked_for = |protection: &Protection| {
            let name = protection.to_string();
            let mut missing = missing.iter().filter_map(|failure| failure.as_str());
            applied.contains(&&*name) || missing.any(|failure| failure.starts_with(&name))
        };
        let asked: Vec<_> = Protection::ALL.into_iter().filter(asked_for).collect();
        assert_eq!(asked, states);
    }
    call().unwrap();
}

fn seccomp_mode(thread: &Path) -> String {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("Seccomp:"));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}
