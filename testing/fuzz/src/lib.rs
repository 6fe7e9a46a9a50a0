//! Every decoder under hostile bytes: one function per decoder, three ways to run it.
//!
//! ```text
//!                       ┌──▶ tests/mutations.rs   seeds, changed deterministically; stable, in CI
//!  TARGETS: name, run, ─┼──▶ tests/memory.rs      bombs: how much memory a byte of input can cost
//!  seeds, rounds        └──▶ libfuzzer/           the same functions under libFuzzer (nightly)
//! ```
//!
//! In: any bytes. Out: whether the decoder accepted them; a broken promise is a panic. Each target
//! promises more than "no panic": what decodes has exactly the bytes it was decoded from; what
//! verifies or opens is one of the objects that were honestly made (forging another one would break
//! the cryptography); what fails leaves nothing behind.
//!
//! Not here: decoders of the software TEE's socket and of the launcher's files, which only their own
//! side writes; the door's state machine (`enclave/door/tests`). What a host can do to the rings' memory is here.
//!
//! Replay: a failing test prints the command that runs exactly that input again, and its bytes.

mod capsule;
mod cast;
mod envelope;
mod evidence;
mod function;
mod ledger;
mod levels;
pub mod mutate;
mod package;
mod protocol;
mod ring;
mod session;
mod statements;
mod storage;
mod table;
mod text;
mod tlog;
mod vectors;

pub use capsule::{
    capsule_acknowledgement, capsule_certificate, capsule_changes, capsule_export, capsule_fork,
    capsule_heads, capsule_keyring, capsule_metadata, capsule_opening, capsule_proof,
    capsule_record, capsule_segment, capsule_signed_head, capsule_slice, capsule_text,
};
pub use envelope::{sealed_request, sealed_response, stream_chunk};
pub use evidence::{evidence, evidence_vendor_roots};
pub use function::{function_manifest, function_output, function_request};
pub use ledger::{ledger_files, ledger_log_file};
pub use levels::{levels_manifest, levels_plaintext, levels_run};
pub use package::{
    onnx_signature, ort_file, package_file, package_header_fields, package_manifest, rten_file,
};
pub use protocol::{
    call_reply, inference_output, inference_parts, inference_reply, inference_request,
    service_reply, service_request, status,
};
pub use ring::{door_calls, door_ring};
pub use session::{session_accept, session_certificate, session_claims, session_gate};
pub use statements::{
    certificate_statement, command_statement, grant_statement, group_statement, header_statement,
    receipt_bundle, receipt_statement, succession,
};
pub use storage::{storage_answer, storage_operations};
pub use table::{table_entry, table_session};
pub use text::{configuration_toml, identifiers, policy_toml, selectors, version_range};
pub use tlog::{tlog_add_checkpoint, tlog_checkpoint, tlog_entries, tlog_note, tlog_tile_path};

/// One decoder and what it needs to be exercised.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, in tests, replay commands and libFuzzer.
    pub name: &'static str,
    /// Runs it; returns whether the bytes were accepted and panics when a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Honest objects, all accepted.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations in one run of the stable test; fewer where one costs milliseconds.
    pub rounds: u32,
}

macro_rules! targets {
    ($($name:ident from $module:ident, $rounds:expr;)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $name,
            seeds: $module::seeds::$name,
            rounds: $rounds,
        }),*];
    };
}

/// Rounds of a target that costs microseconds.
const MANY: u32 = 10_000;
/// Rounds of a target that costs a signature or two.
const SOME: u32 = 4_000;
/// Rounds of a target that costs milliseconds.
const FEW: u32 = 600;

targets! {
    sealed_request from envelope, FEW;
    sealed_response from envelope, FEW;
    stream_chunk from envelope, MANY;
    evidence from evidence, FEW;
    evidence_vendor_roots from evidence, FEW;
    grant_statement from statements, SOME;
    group_statement from statements, SOME;
    succession from statements, SOME;
    certificate_statement from statements, SOME;
    receipt_statement from statements, SOME;
    command_statement from statements, SOME;
    header_statement from statements, SOME;
    receipt_bundle from statements, SOME;
    package_file from package, SOME;
    package_header_fields from package, SOME;
    package_manifest from package, SOME;
    function_manifest from function, SOME;
    onnx_signature from package, MANY;
    rten_file from package, MANY;
    ort_file from package, MANY;
    session_certificate from session, SOME;
    session_claims from session, MANY;
    session_gate from session, FEW;
    session_accept from session, FEW;
    service_request from protocol, MANY;
    service_reply from protocol, SOME;
    inference_request from protocol, MANY;
    inference_output from protocol, MANY;
    inference_reply from protocol, MANY;
    inference_parts from protocol, MANY;
    function_request from function, MANY;
    function_output from function, MANY;
    call_reply from protocol, MANY;
    status from protocol, MANY;
    storage_answer from storage, MANY;
    storage_operations from storage, MANY;
    configuration_toml from text, SOME;
    policy_toml from text, SOME;
    identifiers from text, MANY;
    selectors from text, MANY;
    version_range from text, MANY;
    capsule_acknowledgement from capsule, SOME;
    capsule_certificate from capsule, SOME;
    capsule_changes from capsule, MANY;
    capsule_export from capsule, FEW;
    capsule_fork from capsule, SOME;
    capsule_heads from capsule, SOME;
    capsule_keyring from capsule, MANY;
    capsule_metadata from capsule, MANY;
    capsule_opening from capsule, SOME;
    capsule_proof from capsule, FEW;
    capsule_record from capsule, FEW;
    capsule_segment from capsule, MANY;
    capsule_signed_head from capsule, SOME;
    capsule_slice from capsule, SOME;
    capsule_text from capsule, MANY;
    table_entry from table, MANY;
    table_session from table, MANY;
    levels_manifest from levels, MANY;
    levels_run from levels, SOME;
    levels_plaintext from levels, SOME;
    tlog_add_checkpoint from tlog, SOME;
    tlog_checkpoint from tlog, SOME;
    tlog_entries from tlog, MANY;
    tlog_note from tlog, MANY;
    tlog_tile_path from tlog, MANY;
    ledger_files from ledger, FEW;
    ledger_log_file from ledger, SOME;
    door_ring from ring, MANY;
    door_calls from ring, MANY;
}

/// Finds a target by name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
