//! Every target under mutations of honest objects; the same ones in every run.
//!
//! A failure prints the command that replays it. `BIELD_FUZZ_ROUNDS=100` multiplies the rounds.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::LazyLock;

use bield_fuzz::{TARGETS, Target, mutate, target};

macro_rules! no_mutation_breaks_a_promise_of {
    ($($name:ident)*) => {
        mod no_mutation_breaks_a_promise_of {
            $(#[test] fn $name() { super::run(stringify!($name)); })*
        }
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

no_mutation_breaks_a_promise_of! {
    sealed_request sealed_response stream_chunk evidence evidence_vendor_roots grant_statement
    group_statement succession
    certificate_statement receipt_statement command_statement header_statement receipt_bundle
    package_file package_header_fields package_manifest function_manifest onnx_signature rten_file ort_file session_certificate
    session_claims session_gate session_accept service_request service_reply inference_request
    inference_output inference_reply inference_parts function_request function_output call_reply status storage_answer storage_operations
    configuration_toml policy_toml identifiers selectors version_range
    capsule_acknowledgement capsule_certificate capsule_changes capsule_export capsule_fork
    capsule_heads capsule_keyring capsule_metadata capsule_opening capsule_proof capsule_record
    capsule_segment capsule_signed_head capsule_slice capsule_text table_entry table_session levels_manifest levels_run
    levels_plaintext tlog_add_checkpoint tlog_checkpoint
    tlog_entries tlog_note tlog_tile_path ledger_files ledger_log_file door_ring door_calls
}

#[test]
fn every_target_is_tested() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn every_target_has_its_libfuzzer_program() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in TESTED {
        let program = folder.join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(program).unwrap();
        assert!(
            text.contains(&format!("bield_fuzz::{name}(data)")),
            "{name}"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TESTED.len());
}

#[test]
fn every_seed_is_accepted() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert!((target.run)(seed), "{} seed {number}", target.name);
        }
    }
}

/// Inputs that once reached new code, or broke something: small, and kept for ever.
#[test]
fn no_committed_input_breaks_a_promise() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut run = 0;
    for folder in std::fs::read_dir(corpus).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let target = target(&name).expect("a folder of the corpus is named after its target");
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            let input = std::fs::read(&file).unwrap();
            let broken = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err();
            assert!(!broken, "{} breaks a promise of {name}", file.display());
            run += 1;
        }
    }
    assert!(run > 0, "the corpus is empty");
}

#[test]
fn the_same_round_gives_the_same_input() {
    let target = target("grant_statement").unwrap();
    let seeds = (target.seeds)();
    let input = |round| mutate::input(target, &seeds, &FOREIGN, round);
    assert_eq!(input(7), input(7));
    assert_ne!(input(7), input(8));
}

/// All seeds of all targets: each is foreign to most.
static FOREIGN: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let seeds = TARGETS.iter().flat_map(|target| (target.seeds)());
    seeds.collect()
});

fn run(name: &str) {
    let target = target(name).unwrap();
    let seeds = (target.seeds)();
    let times = std::env::var("BIELD_FUZZ_ROUNDS").map_or(1, |times| times.parse().unwrap());
    match std::env::var("BIELD_FUZZ_REPLAY") {
        Ok(round) => check(target, &seeds, round.parse().unwrap()),
        Err(_) => (0..target.rounds * times).for_each(|round| check(target, &seeds, round)),
    }
}

fn check(target: &Target, seeds: &[Vec<u8>], round: u32) {
    let input = mutate::input(target, seeds, &FOREIGN, round);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
        let name = target.name;
        eprintln!(
            "replay: BIELD_FUZZ_REPLAY={round} cargo test -p bield-fuzz --test mutations \
             no_mutation_breaks_a_promise_of::{name} -- --exact\ninput of {} bytes: {}",
            input.len(),
            hex::encode(&input[..input.len().min(PRINTED_BYTES_MAX)])
        );
        resume_unwind(panic);
    }
}

/// Bytes of a failing input that are printed; longer ones are replayed by their number.
const PRINTED_BYTES_MAX: usize = 2048;
