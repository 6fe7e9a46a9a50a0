//! Call sealed models and functions; nothing is sent before verification succeeded.
//!
//! ```text
//! trust.toml ─▶ Trust ──connect──▶ KeyService ──target──▶ Target ──call──▶ Answered
//!                Home    │ evidence verified   │ key, code,      │ sealed to       │ receipt
//!                        │ against Trust, log  │ package checked │ that code       │ verified
//!                        │ against Home        │                 │                 │
//!                        ▼                     ▼                 ▼                 ▼
//!                   ServiceError          ServiceError       CallError         CallError
//! ```
//!
//! Always true: a [`KeyService`] exists only after its evidence met the [`Trust`] and its log was shown to
//! continue what the [`Home`] has seen of it; a [`Target`] only
//! after the attested key service named it and its code, package, audience, service and end were
//! compared with what was asked; a request leaves only sealed, through [`Target::call`] or as what [`Target::seal_call`] made; an [`Answered`] exists only after its
//! receipt was verified. Owners' commands are signed for one session and one place in it.
//!
//! Not here: the terminal (the command line does that; long work reports through callbacks), what
//! evidence means (`bield-evidence`), trusting anything on first use.
//!
//! Time and randomness are arguments, as in `core`: [`now`] and [`Randomness`] are the system's.
//!
//! Speed on paper: connect = TCP + 3 round trips + 2 ms of verification + one synced file; target = 1 round trip;
//! call = 1 X-Wing encapsulation (0.3 ms), 1 HTTP exchange, 3 signature checks (0.15 ms), 2 copies
//! of the inputs. A target is good for many calls, until its key's end.
//!
//! ```no_run
//! use bield_sdk::{Home, KeyService, Randomness, Reference, Tensor, now};
//!
//! let home = Home::at("/home/ada/.bield");
//! let (identity, trust) = (home.identity()?, home.trust()?);
//! let mut service = KeyService::connect(&home, &trust, now(), &mut Randomness)?;
//! let magika: Reference = "magika@3.3".parse()?;
//! let magika = magika.of(trust.owner())?;
//! let target = service.target(&magika, &trust.code()[0], now())?;
//! let bytes = Tensor::from_i32("bytes", &[1, 4], &[35, 33, 47, 98])?;
//! let answered = target.call(&identity, vec![bytes], vec![], &mut Randomness)?;
//! println!("{}: {:?}", answered.receipt, answered.tensors);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit;
mod call;
pub mod capsule;
mod carry;
mod command;
mod entropy;
mod error;
mod files;
mod freshness;
mod function;
mod gateway;
mod home;
mod listing;
mod parts;
mod recovery;
mod reference;
mod service;
mod target;
mod trust;
mod verification;
mod wire;
mod words;

pub use audit::{Audit, AuditError, AuditFrom, Seen};
pub use call::{Answered, CallOptions, RETRY_WAIT_MAX, Waiting};
pub use carry::Awaited;
pub use entropy::{Randomness, now};
pub use error::{CallError, GatewayError, Kind, ServiceError, TargetError};
pub use files::{FileError, write_atomically};
pub use freshness::{Fresh, Head, NotFresh};
pub use function::{
    FUNCTION_FILE, FunctionAnswered, FunctionCall, FunctionFile, FunctionFileError, FunctionState,
    FunctionStateError, NamedPackage, SeenState,
};
pub use gateway::{Gateway, Stored};
pub use home::{Home, HomeError, KeptShare, KnownService};
pub use listing::ListedGrant;
pub use parts::EarlyOutput;
pub use recovery::{RecoverySession, missing_shares};
pub use reference::{NoOwner, ParseReferenceError, Reference};
pub use service::{Acceptance, Accepted, KeyService, accept};
pub use target::Target;
pub use trust::{
    ADDRESSES_MAX, Addresses, RuntimesConfig, Trust, TrustConfig, TrustError, WitnessesConfig,
};
pub use verification::{Verification, verify, verify_at};
pub use wire::SERVICE_EVIDENCE_AGE_MAX;

pub use bield_protocol::service::{Inspection, PackageReference};
pub use bield_protocol::tensor::{ElementType, Tensor, TensorSpec};
