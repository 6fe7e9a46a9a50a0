//! Real processes: the program `bield-software-tee` and enclave programs of the same ordinary user.
//!
//! The enclave program is this test binary, started again in a role (see `enclave_program`).

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bield_envelope::Digest;
use bield_evidence::Measurement;
use bield_platform::software::Refusal;
use bield_platform::{Protection, Tee as _, TeeError, harden, software};
use bield_software_tee::{Platform, measure};
use support::{Home, Running, as_user};

const CONFIGURATION: Digest = Digest::from_bytes([9; 32]);

/// Not a test by itself: the program under measurement. Says what happened, one line a step.
#[test]
#[ignore = "a role that other tests start"]
fn enclave_program() {
    let socket = PathBuf::from(std::env::var_os("TEST_SOCKET").unwrap());
    if std::env::var_os("TEST_HARDEN_FIRST").is_some() {
        harden();
    }
    let tee = match software::connect(&socket, CONFIGURATION) {
        Ok(tee) => tee,
        Err(error) => return println!("\nsays {error:?}"),
    };
    println!("\nsays {}", tee.measurement());
    let hardening = harden();
    assert!(hardening.is_complete());
    assert!(hardening.applied.contains(&Protection::NotDumpable));
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "quote" => match tee.evidence(&[3; 64]) {
                Ok(_) => println!("says quoted"),
                Err(error) => println!("says {error:?}"),
            },
            _ => return,
        }
    }
}

/// The enclave program, spoken to through its standard input and output.
struct Enclave {
    running: Running,
    lines: BufReader<std::process::ChildStdout>,
}

impl Enclave {
    fn start(program: &Path, home: &Home, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = as_user(program);
        command
            .args(["--exact", "enclave_program", "--ignored", "--nocapture"])
            .env("TEST_SOCKET", home.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child: Child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self {
            running: Running(child),
            lines,
        }
    }

    fn ask(&mut self, question: &str) -> String {
        let stdin = self.running.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{question}").unwrap();
        self.hear()
    }

    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(said) = line.strip_prefix("says ") {
                return said.trim_end().to_owned();
            }
        }
    }
}

fn install_enclave(home: &Home) -> PathBuf {
    home.install(&std::env::current_exe().unwrap(), "enclave")
}

#[test]
fn a_program_is_measured_by_its_file_and_anyone_can_compute_the_same() {
    let home = Home::new();
    let _tee = home.start_tee();
    let program = install_enclave(&home);
    let changed = home.install(&program, "changed");
    let mut file = OpenOptions::new().append(true).open(&changed).unwrap();
    file.write_all(&[0]).unwrap();
    drop(file);

    let measured = |program: &Path| -> Measurement {
        let said = Enclave::start(program, &home, |_| {}).hear();
        said.parse().unwrap()
    };
    let (first, second) = (measured(&program), measured(&changed));
    assert_eq!(first, measure(&program, CONFIGURATION).unwrap());
    assert_eq!(second, measure(&changed, CONFIGURATION).unwrap());
    assert_ne!(first, second);
}

#[test]
fn a_hardened_program_connects_again_when_the_tee_restarts() {
    let home = Home::new();
    let tee = home.start_tee();
    let mut enclave = Enclave::start(&install_enclave(&home), &home, |_| {});
    enclave.hear();
    assert_eq!(enclave.ask("quote"), "quoted");

    drop(tee);
    assert!(enclave.ask("quote").starts_with("Unreachable"));

    let _tee = home.start_tee();
    assert_eq!(enclave.ask("quote"), "quoted");
}

#[test]
fn a_program_on_another_machine_than_before_is_refused() {
    let home = Home::new();
    let tee = home.start_tee();
    let mut enclave = Enclave::start(&install_enclave(&home), &home, |_| {});
    enclave.hear();
    drop(tee);

    fs::remove_file(home.state().join("machine")).unwrap();
    let _tee = home.start_tee();
    assert_eq!(enclave.ask("quote"), "Refused(ForeignTicket)");
}

/// Root may measure everything, so this shows only when the programs run as an ordinary user.
#[test]
fn a_program_that_hardens_before_it_connects_is_told_why_it_is_refused() {
    let home = Home::new();
    let _tee = home.start_tee();
    let mut enclave = Enclave::start(&install_enclave(&home), &home, |command| {
        command.env("TEST_HARDEN_FIRST", "1");
    });
    assert_eq!(enclave.hear(), "Refused(NotMeasurable)");
    assert!(
        Refusal::NotMeasurable
            .to_string()
            .contains("before hardening")
    );
}

#[test]
fn the_printed_root_is_the_machines() {
    let home = Home::new();
    let print = || {
        let program = home.install(Path::new(env!("CARGO_BIN_EXE_bield-software-tee")), "tee");
        let output = as_user(&program)
            .arg("--state")
            .arg(home.state())
            .arg("--print-root")
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let root = print();
    assert_eq!(root, print());
    // Root may read the file too; an ordinary user is its owner.
    let platform = Platform::load_or_create(&home.state()).unwrap();
    assert_eq!(root.trim_end(), hex(platform.root_der()));
}

#[test]
fn the_banner_says_that_nothing_is_protected() {
    let home = Home::new();
    let program = home.install(Path::new(env!("CARGO_BIN_EXE_bield-software-tee")), "tee");
    let mut command = as_user(&program);
    command.arg("--state").arg(home.state());
    command.arg("--socket").arg(home.socket());
    let mut tee = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut banner = vec![0; 400];
    tee.0
        .stderr
        .take()
        .unwrap()
        .read_exact(&mut banner)
        .unwrap();
    assert!(String::from_utf8_lossy(&banner).contains("NO HARDWARE PROTECTION"));
}

#[test]
fn what_cannot_work_ends_with_its_exit_code_and_a_sentence() {
    let home = Home::new();
    let _tee = home.start_tee();
    let run = |arguments: &[&str]| {
        let output = as_user(&home.path("tee")).args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let state = home.state().to_str().unwrap().to_owned();
    let socket = home.socket().to_str().unwrap().to_owned();

    assert_eq!(run(&[]).0, Some(2));
    let (code, said) = run(&["--state", &state, "--socket", &socket]);
    assert_eq!(code, Some(1));
    assert!(said.contains("in use"), "{said}");
    let (code, said) = run(&["--state", "/proc/nowhere", "--socket", &socket]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/proc/nowhere"), "{said}");
    let (code, said) = run(&["--state", &state, "--socket", "/proc/tee.sock"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/proc/tee.sock"), "{said}");
}

#[test]
fn the_errors_of_a_client_without_a_tee_name_the_socket() {
    let home = Home::new();
    let refused = software::connect(&home.socket(), CONFIGURATION).map(drop);
    assert!(matches!(&refused, Err(TeeError::Unreachable { path, .. }) if *path == home.socket()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
