//! Everything a function reaches while it handles one request.
//!
//! A [`World`] is made for one request and dropped after it. Its owner knows whose request it is, which buckets and
//! models the function's manifest names, and what they are backed by; the host calls it on the thread of
//! [`Function::call`](crate::Function::call), one operation at a time.
//!
//! Always true of a good one: [`now`](World::now) is one moment per request; [`random`](World::random) is a stream of
//! its own per request; whatever blocks ends by the request's deadline, since the host can stop a guest but not its
//! own calls.

use std::fmt;

use bield_envelope::Time;
use bield_package::tensor::Tensor;

/// What the host asks for on behalf of a guest.
pub trait World: Send {
    /// The moment of this request: the same each time.
    fn now(&self) -> Time;

    /// Fills the buffer with randomness of this request.
    fn random(&mut self, bytes: &mut [u8]);

    /// Keeps a line for the function's owner. It may hold anything of the request: nobody else may read it.
    fn log(&mut self, level: Level, line: &str);

    /// Opens a bucket by the name it has in the function's manifest.
    ///
    /// # Errors
    /// The manifest declares none of that name, or it cannot be opened.
    fn open(&mut self, bucket: &str) -> Result<BucketId, KvError>;

    /// Reads a key.
    ///
    /// # Errors
    /// The bucket refuses, or cannot be read.
    fn get(&mut self, bucket: BucketId, key: &str) -> Result<Option<Vec<u8>>, KvError>;

    /// Writes a key.
    ///
    /// # Errors
    /// The bucket refuses, or cannot be written.
    fn set(&mut self, bucket: BucketId, key: &str, value: Vec<u8>) -> Result<(), KvError>;

    /// Removes a key; one that is not there is no error.
    ///
    /// # Errors
    /// The bucket refuses, or cannot be written.
    fn delete(&mut self, bucket: BucketId, key: &str) -> Result<(), KvError>;

    /// Tells whether a key has a value.
    ///
    /// # Errors
    /// The bucket refuses, or cannot be read.
    fn exists(&mut self, bucket: BucketId, key: &str) -> Result<bool, KvError>;

    /// Lists keys in the order of their bytes, from a cursor of an earlier page on.
    ///
    /// # Errors
    /// The bucket refuses, cannot be read, or the cursor is none of this bucket's.
    fn list_keys(&mut self, bucket: BucketId, cursor: Option<&str>) -> Result<KeyPage, KvError>;

    /// Adds to the number under a key, in one step, and returns the sum.
    ///
    /// # Errors
    /// The bucket is eventual (`unsupported: …`), what is stored is no number, the sum is too large, or as for
    /// [`set`](World::set).
    fn increment(&mut self, bucket: BucketId, key: &str, delta: i64) -> Result<i64, KvError>;

    /// Reads a key together with what [`swap`](World::swap) wants to see.
    ///
    /// # Errors
    /// The bucket is eventual (`unsupported: …`), or as for [`get`](World::get).
    fn get_for_swap(&mut self, bucket: BucketId, key: &str) -> Result<Seen, KvError>;

    /// Writes a key if nobody has since the token was given out; `false` if somebody has.
    ///
    /// # Errors
    /// As for [`set`](World::set), and if the bucket is eventual.
    fn swap(
        &mut self,
        bucket: BucketId,
        key: &str,
        token: &CasToken,
        value: Vec<u8>,
    ) -> Result<bool, KvError>;

    /// Writes several keys.
    ///
    /// # Errors
    /// As for [`set`](World::set).
    fn set_many(&mut self, bucket: BucketId, pairs: Vec<(String, Vec<u8>)>) -> Result<(), KvError>;

    /// Removes several keys.
    ///
    /// # Errors
    /// As for [`delete`](World::delete).
    fn delete_many(&mut self, bucket: BucketId, keys: &[String]) -> Result<(), KvError>;

    /// Opens a model by the name it has in the function's manifest.
    ///
    /// # Errors
    /// The manifest names none like that, the caller may not use it, or it does not open.
    fn load_model(&mut self, name: &str) -> Result<ModelId, NnError>;

    /// Runs a model.
    ///
    /// # Errors
    /// The inputs are not what the model takes, or the engine failed.
    fn compute(&mut self, model: ModelId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, NnError>;
}

/// A bucket that [`World::open`] gave out; means nothing to another world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketId(pub u32);

/// A model that [`World::load_model`] gave out; means nothing to another world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelId(pub u32);

/// What [`World::swap`] compares: which write was seen, or that there was none. Two writes never have the same, even
/// of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CasToken(pub Vec<u8>);

/// A key as it was read.
pub struct Seen {
    /// Its value, if it had one.
    pub value: Option<Vec<u8>>,
    /// Which write that was.
    pub token: CasToken,
}

/// One page of keys.
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub cursor: Option<String>,
}

/// Why an operation on a bucket did not happen; the guest sees it. The words may name things, never show contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The function's manifest declares no such bucket.
    #[error("no such bucket")]
    NoSuchStore,
    /// The function may not open it.
    #[error("access denied")]
    AccessDenied,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl KvError {
    /// What atomic operations say of a bucket that gives no such promise.
    #[must_use]
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::Other(format!("unsupported: {what}"))
    }
}

/// Why a model did not open or run; the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NnError {
    /// The kind of it.
    pub kind: NnErrorKind,
    /// In words: may name things, never show contents.
    pub message: String,
}

impl NnError {
    /// Puts a kind and its words together.
    #[must_use]
    pub fn new(kind: NnErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// The kinds of `wasi:nn/errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NnErrorKind {
    /// An argument that makes no sense, or not to this model.
    InvalidArgument,
    /// The model is not what it says.
    InvalidEncoding,
    /// It took too long.
    Timeout,
    /// The engine failed.
    Runtime,
    /// Not something bield does.
    Unsupported,
    /// More than the limits allow.
    TooLarge,
    /// The manifest names no such model.
    NotFound,
    /// Not allowed.
    Security,
    /// None of these.
    Unknown,
}

/// How much a line of a function's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who writes the function.
    Debug,
    /// Something happened.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}
