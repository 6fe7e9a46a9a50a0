//! The faults published of an earlier system's key service, one test for each: it fails when the fault is back.
//!
//! Here the service runs in this process on files in memory, and what a session proves of its peer is
//! appraised evidence of a software TEE. `end-to-end` is `testing/end-to-end/tests`, on whole programs.
//!
//! | item | what went wrong there | test |
//! |---|---|---|
//! | K1 | the quote's verdict is thrown away | `k01_…` here; `core/evidence/tests/simulated.rs`, `samples.rs`; `k01_…` in `end-to-end/findings_key_service.rs` |
//! | K2 | the code's identity is a constant | `k02_…` here |
//! | K3 | nobody pins the key service | `k03_…` in `end-to-end/findings_key_service.rs`; `core/session/tests/attacks.rs::diversion_to_a_genuine_tee_of_another_service_is_refused`; `k03_…` here: a certificate and a checkpoint name their service |
//! | K4 | a constant nonce under long-lived keys | `k04_…` here; `core/envelope/tests/envelope.rs` |
//! | K5 | a published signing key opens what is sealed | `k05_…` here |
//! | K6 | secrets are printed | `k06_…` in `end-to-end/findings_key_service.rs`, `end-to-end/secrecy.rs`; `k06_…` here: types and refusals are silent |
//! | K7 | fields overflow fixed buffers | `k07_…` here; `testing/fuzz` |
//! | K8 | short payloads wrap a length | `k08_…` here; `testing/fuzz` |
//! | K9 | a host's pointer is used inside | `enclave/door/tests/door.rs`: bytes only; `k09_…` here: lengths that files claim |
//! | K10 | a message passes for another kind | `k10_…` here |
//! | K11 | old messages roll keys back | `k11_…` here; `model` plays every command again |
//! | K12 | no revoking, rotating, ending | `k12_…` here; `end-to-end/revocation.rs` |
//! | K13 | the store can be set back | `k13_…` here; `src/program/tests/rollback.rs`; `end-to-end/rollback.rs` |
//! | K14 | names of records come from callers | `k14_…` here and in `end-to-end/findings_key_service.rs` |
//! | K15 | an empty name skips the check | `k15_…` here |
//! | K16 | a short name reads past its end; keys of any length | `k16_…` here |
//! | K17 | TLS 1.2, slow keys | `k17_…` in `end-to-end/findings_key_service.rs`; `core/session/tests/attacks.rs::sessions_are_never_resumed_and_use_the_hybrid_group` |
//! | K18 | no audit, metrics, administration | `k18_…` here and in `end-to-end/findings_key_service.rs` |
//! | K19 | one instance, no separation of tenants | `k19_…` here: tenants; `k19_…` in `end-to-end/findings_key_service.rs`, `end-to-end/failover.rs`, `src/cluster/tests.rs` |
//! | K20 | keys are never wiped or forgotten | `k20_…` here; `core/envelope/src/secret.rs` |
//! | F1 | a second grantee hangs it | `f01_…` here and in `end-to-end/findings_key_service.rs` |
//! | F2 | one refused fetch locks all out | `f02_…` here: the service; the worker: `enclave/runtime/src/leases/tests.rs`, `end-to-end/findings_key_service.rs` |
//! | F3 | a broken channel is never opened again | `f03_…` here: the service; the worker: `enclave/runtime/src/key_service/tests.rs`, `end-to-end/findings_key_service.rs` |
//! | F4 | one bad connection ends it | `f04_…` in `end-to-end/findings_key_service.rs`, `src/sessions/tests.rs`; `f04_…` here: one bad message |
//! | F5 | unparsable bytes stop the HTTP server | `f05_…` in `end-to-end/findings_key_service.rs`; `f05_…` here: bytes that are no message |
//! | F6 | two clients at once mix | `f06_…` here; `end-to-end/hostile_peers.rs` |
//! | F7 | a file under another name opens as nonsense | `f07_…` here and in `end-to-end/findings_key_service.rs` |

#[path = "../cast/mod.rs"]
mod cast;
mod evidence_and_secrets;
mod failures;
mod lives;
mod messages;

use std::sync::Arc;

use bield_capsule::PAYLOAD_BYTES_MAX;
use bield_envelope::{Principal, SealedRequest, Secret, Signed};
use bield_evidence::{Measurement, Policy, Reference, TeeKind, appraise, verify};
use bield_grant::{Grant, PackageSelector, UserSelector};
use bield_keys::service::Conversation;
use bield_keys::testing::InProcess;
use bield_ledger::MemoryFiles;
use bield_package::PackageHeader;
use bield_protocol::service::{
    AuditEvent, Command, LeaseRequest, Listing, ListingPage, Operation, PackageOffer,
    PackageReference, Reply, Request, Returned, chained, key_commitment,
};
use bield_software_tee::{CollateralOptions, Kind, SgxReport, TcbStatus};

use cast::material::{Material, seal};
use cast::{
    ADMINISTRATOR, HOUR, MINUTE, NOON, World, code, exactly, grant, group, header, key, principal,
    report, runtime, session, sign, succession,
};
