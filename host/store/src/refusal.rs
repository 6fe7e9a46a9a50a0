//! What a store says when it does not do what was asked.
//!
//! Always true: a refusal has a status, a slug that programs compare, and a sentence that says what
//! happened, whose move it is and whether to try again. `refused_*` functions map each error of the
//! layers below, so that one error has one answer on every path.

use std::time::Duration;

use bield_capsule::{ForkError, Refused};
use serde_json::{Map, Value, json};

use crate::frames::BadFrame;
use crate::journal::JournalError;

/// A refusal; becomes `{"error": slug, "message": …, "retry": …, …}`.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What programs compare.
    pub slug: &'static str,
    /// What people read.
    pub message: String,
    /// Whether the same request can succeed later without a change on the caller's side.
    pub retry: bool,
    /// When to come back.
    pub after: Option<Duration>,
    /// Facts beside the message: `have`, `need`, `accepted` ….
    pub extra: Box<Map<String, Value>>,
}

impl Refusal {
    /// A refusal that the same request will meet again.
    pub fn new(status: u16, slug: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            slug,
            message: message.into(),
            retry: false,
            after: None,
            extra: Box::default(),
        }
    }

    /// The same request may succeed after this long.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry = true;
        self.after = Some(wait);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// There is no such capsule here.
    pub(crate) fn no_capsule() -> Self {
        Self::new(
            404,
            "no-capsule",
            "this store does not hold the capsule; create it here with PUT and its metadata first",
        )
    }

    /// The queue of the capsule or its shard is full.
    pub(crate) fn busy() -> Self {
        Self::new(
            503,
            "busy",
            "more is queued than this store takes; send it again after a moment",
        )
        .retry_after(Duration::from_secs(1))
    }

    /// The program is ending.
    pub(crate) fn draining() -> Self {
        Self::new(
            503,
            "draining",
            "this store is stopping; use another replica or come back",
        )
        .retry_after(Duration::from_secs(2))
    }

    /// The body as JSON.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({ "error": self.slug, "message": self.message, "retry": self.retry });
        if let Some(fields) = body.as_object_mut() {
            fields.extend((*self.extra).clone());
        }
        body
    }
}

impl From<BadFrame> for Refusal {
    fn from(error: BadFrame) -> Self {
        Self::new(422, "bad-frame", error.to_string()).with("record", error.item)
    }
}

impl From<ForkError> for Refusal {
    fn from(error: ForkError) -> Self {
        Self::new(422, "no-fork", error.to_string())
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::NoSpace => Self::new(
                507,
                "disk-full",
                "this store's disk is full, or it may open no more files; nothing acknowledged is lost: its operator must free \
                 some, then send the \
                 records again",
            )
            .retry_after(Duration::from_secs(30)),
            // Details go to the operator's log: the caller can do nothing with a path.
            _ => Self::stopped(),
        }
    }
}

impl Refusal {
    /// The replica met an error of its disk and takes nothing more.
    pub(crate) fn stopped() -> Self {
        Self::new(
            503,
            "stopped",
            "this replica's storage failed and it takes no records until its operator has looked; use another replica",
        )
    }
}

/// Maps the verdict on one record.
impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let slug = refused.slug();
        let status = match slug {
            // The record and what is here do not fit together (yet).
            "gap" | "config-gap" | "prev" | "earlier" | "known" | "conflict" | "forked"
            | "other-config" => 409,
            // The writer may not.
            "not-admitted" | "revoked" | "other-last" | "simulated" | "certificate" | "closed"
            | "owner-kind" | "writers" => 403,
            // The record is wrong in itself.
            _ => 422,
        };
        let mut refusal = Self::new(status, slug, refused.to_string());
        refusal.retry = refused.retry();
        match refused {
            Refused::Gap { have, got, .. } => refusal.with("have", have).with("got", got),
            Refused::ConfigGap { have, need } => refusal.with("have", have).with("need", need),
            Refused::Revoked { last, .. } => refusal.with("last", last),
            _ => refusal,
        }
    }
}
