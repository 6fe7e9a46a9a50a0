//! What a function may use: the part of a manifest that only functions have (`spec/05 §3`).
//!
//! ```text
//! FunctionSpec ─┬─ component   SHA-256 of the .wasm: the identity of the code
//!               ├─ limits      of one request
//!               ├─ buckets     of its table, each with the consistency and durability it is promised
//!               ├─ models      by the name it loads them under: sealed packages
//!               └─ state       a capsule: metadata, configuration, key ring (secret)
//! ```
//!
//! Always true of one in a checked manifest: limits lie within their maxima, names are unique and
//! safe wherever they are written, there is a state exactly when there are buckets. The key ring
//! cannot be printed, compared or copied and is wiped on drop.
//!
//! Not here: what the limits mean while a function runs (`enclave/function`), whether metadata, configuration and key
//! ring belong together (whoever opens the state), whether a model may be used (its own grants).

use bield_envelope::{Digest, Wiped, wire};
use minicbor::bytes::ByteVec;
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

use crate::name::is_local_name;

/// Most buckets of a function.
pub const BUCKETS_MAX: usize = 32;

/// Most models that a function loads by name.
pub const FUNCTION_MODELS_MAX: usize = 16;

/// Longest metadata of a state's capsule, in bytes: as `bield-capsule` has it.
pub const STATE_METADATA_BYTES_MAX: usize = 2048;

/// Longest key ring of a state, in bytes: 4,000 generations.
pub const STATE_KEYRING_BYTES_MAX: usize = 160 << 10;

/// Most config records of a state: one for every new key service or generation.
pub const STATE_CONFIG_RECORDS_MAX: usize = 4096;

/// Longest configuration of a state, in bytes of all its records: 4 MiB.
pub const STATE_CONFIG_BYTES_MAX: usize = 4 << 20;

/// What a function is and may use.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct FunctionSpec {
    /// SHA-256 of the component: which code it is.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub component: [u8; 32],
    /// What one request may use.
    #[n(1)]
    pub limits: FunctionLimits,
    /// Buckets it may open, at most [`BUCKETS_MAX`].
    #[cbor(n(2), decode_with = "wire::at_most::<BUCKETS_MAX, _, _>")]
    pub buckets: Vec<BucketSpec>,
    /// Models it may load, at most [`FUNCTION_MODELS_MAX`].
    #[cbor(n(3), decode_with = "wire::at_most::<FUNCTION_MODELS_MAX, _, _>")]
    pub models: Vec<NamedModel>,
    /// Where its buckets live; none without buckets.
    #[n(4)]
    pub state: Option<StateSpec>,
}

/// What one request of a function may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct FunctionLimits {
    /// Memory of the instance, in bytes.
    #[n(0)]
    pub memory_bytes: u64,
    /// Time from its start to its answer, in milliseconds.
    #[n(1)]
    pub deadline_ms: u64,
    /// Calls of the host.
    #[n(2)]
    pub host_calls: u64,
    /// The answer, in bytes.
    #[n(3)]
    pub output_bytes: u64,
    /// What it logs, in bytes.
    #[n(4)]
    pub log_bytes: u64,
}

impl FunctionLimits {
    /// The most that any function may have.
    pub const MAX: Self = Self {
        memory_bytes: 1 << 30,
        deadline_ms: 60_000,
        host_calls: 10_000_000,
        output_bytes: 64 << 20,
        log_bytes: 1 << 20,
    };

    /// Names the first limit that is 0 (a log may be) or beyond [`FunctionLimits::MAX`].
    ///
    /// # Errors
    /// The name of that limit.
    pub fn check(&self) -> Result<(), &'static str> {
        let max = Self::MAX;
        let of = |value: u64, min, max| (min..=max).contains(&value);
        for (name, holds) in [
            (
                "memory",
                of(self.memory_bytes, WASM_PAGE_BYTES, max.memory_bytes),
            ),
            ("deadline", of(self.deadline_ms, 1, max.deadline_ms)),
            ("host_calls", of(self.host_calls, 1, max.host_calls)),
            ("output", of(self.output_bytes, 1, max.output_bytes)),
            ("log", of(self.log_bytes, 0, max.log_bytes)),
        ] {
            if !holds {
                return Err(name);
            }
        }
        Ok(())
    }
}

impl Default for FunctionLimits {
    /// 64 MiB, 10 s, 1,000,000 calls, 4 MiB of answer, 64 KiB of log.
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            deadline_ms: 10_000,
            host_calls: 1_000_000,
            output_bytes: 4 << 20,
            log_bytes: 64 << 10,
        }
    }
}

/// One bucket of a function's table, and what its author is promised of it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct BucketSpec {
    /// What the function opens it by: 1 to 63 of `a-z 0-9 . _ -`, as packages are called.
    #[n(0)]
    pub name: String,
    /// What a read shows.
    #[n(1)]
    pub consistency: Consistency,
    /// When a write counts.
    #[n(2)]
    pub durability: Durability,
}

/// What a read of a bucket shows (`spec/07`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Consistency {
    /// What this holder of the state has; atomic operations are refused.
    #[n(0)]
    Eventual,
    /// All that was written before the current epoch began.
    #[n(1)]
    Epoch,
    /// All that was written before the read began.
    #[n(2)]
    Linearizable,
}

/// When a write to a bucket counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Durability {
    /// In the holder's memory.
    #[n(0)]
    Memory,
    /// Written to its host's files.
    #[n(1)]
    Local,
    /// Written and synced.
    #[n(2)]
    LocalSync,
}

/// A model as a function loads it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct NamedModel {
    /// What the function loads it by; named as buckets are.
    #[n(0)]
    pub name: String,
    /// The sealed package it is.
    #[n(1)]
    pub package: Digest,
}

/// The capsule that holds a function's state.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct StateSpec {
    /// The capsule's metadata, of which its name is the hash.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub metadata: Vec<u8>,
    /// The capsule's keys.
    #[n(1)]
    pub keyring: StateKeys,
    /// The owner's chain from its first record: who may write, and which keys count.
    #[cbor(n(2), decode_with = "wire::at_most::<STATE_CONFIG_RECORDS_MAX, _, _>")]
    pub config: Vec<ByteVec>,
}

/// An encoded key ring (`bield_capsule::KeyRing::encode_secret`); wiped on drop.
///
/// ```compile_fail
/// let keys = bield_package::StateKeys::new(&[0; 3]);
/// println!("{keys:?}");
/// ```
pub struct StateKeys(Wiped);

impl StateKeys {
    /// Takes a copy of an encoded ring; the caller wipes its own.
    #[must_use]
    pub fn new(ring: &[u8]) -> Self {
        Self(ring.to_vec().into())
    }

    /// Shows the bytes, for `bield_capsule::KeyRing::decode` and nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl<C> Encode<C> for StateKeys {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StateKeys {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?;
        if bytes.len() > STATE_KEYRING_BYTES_MAX {
            return Err(decode::Error::message("a key ring that is too long"));
        }
        Ok(Self::new(bytes))
    }
}

impl FunctionSpec {
    /// The bucket of this name.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<&BucketSpec> {
        self.buckets.iter().find(|bucket| bucket.name == name)
    }

    /// The package that the function loads by this name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<Digest> {
        let mut models = self.models.iter();
        models
            .find(|model| model.name == name)
            .map(|model| model.package)
    }

    pub(crate) fn check(&self) -> Result<(), FunctionError> {
        self.limits
            .check()
            .map_err(|limit| FunctionError::Limit { limit })?;
        check_names(self.buckets.iter().map(|bucket| &bucket.name), BUCKETS_MAX)?;
        check_names(
            self.models.iter().map(|model| &model.name),
            FUNCTION_MODELS_MAX,
        )?;
        match &self.state {
            None if self.buckets.is_empty() => Ok(()),
            Some(state) if !self.buckets.is_empty() => state.check(),
            _ => Err(FunctionError::State),
        }
    }
}

impl StateSpec {
    fn check(&self) -> Result<(), FunctionError> {
        let config_bytes: usize = self.config.iter().map(|record| record.len()).sum();
        let fits = !self.metadata.is_empty()
            && self.metadata.len() <= STATE_METADATA_BYTES_MAX
            && self.keyring.0.len() <= STATE_KEYRING_BYTES_MAX
            && (1..=STATE_CONFIG_RECORDS_MAX).contains(&self.config.len())
            && config_bytes <= STATE_CONFIG_BYTES_MAX;
        fits.then_some(()).ok_or(FunctionError::StateSize)
    }
}

/// What a function's description says makes no sense. Its author corrects it and packs again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionError {
    /// A limit that is 0 or more than any function may have.
    #[error("its limit {limit} is 0, or more than any function may have")]
    Limit {
        /// Which.
        limit: &'static str,
    },
    /// A name that could not be used safely.
    #[error(
        "{name:?} names no bucket and no model: a name has 1 to 63 of a-z 0-9 . _ -, starts and ends \
         with a letter or digit, and has no two dots in a row"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two buckets or two models of one name.
    #[error("two of its buckets or models are named {name}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Too many buckets or models.
    #[error("{found} buckets or models; the limit is {max}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// Buckets without a state, or a state without buckets.
    #[error("it has buckets and no state to keep them in, or a state and no buckets")]
    State,
    /// Metadata, key ring or configuration of the state are missing or too long.
    #[error("its state's metadata, key ring or configuration is missing or too long")]
    StateSize,
}

fn check_names<'a>(
    names: impl ExactSizeIterator<Item = &'a String> + Clone,
    max: usize,
) -> Result<(), FunctionError> {
    let found = names.len();
    if found > max {
        return Err(FunctionError::TooMany { found, max });
    }
    for (index, name) in names.clone().enumerate() {
        if !is_local_name(name) {
            return Err(FunctionError::Name { name: name.clone() });
        }
        if names.clone().take(index).any(|other| other == name) {
            return Err(FunctionError::Duplicate { name: name.clone() });
        }
    }
    Ok(())
}

/// Less memory than this has no instance.
const WASM_PAGE_BYTES: u64 = 64 << 10;
