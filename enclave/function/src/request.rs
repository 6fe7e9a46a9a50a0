//! What a function is asked and what it answers.

use bield_envelope::Wiped;

/// One opened request. The body is wiped when it is dropped.
pub struct Request {
    /// Which of the function's doors it is for; the function's own affair.
    pub path: String,
    /// What the body is, as a media type; may be empty.
    pub content_type: String,
    /// The body.
    pub body: Wiped,
    /// Who sent it, verified: a principal as text.
    pub caller: String,
}

/// A function's answer. The body is wiped when it is dropped.
pub struct Response {
    /// What the body is, as a media type.
    pub content_type: String,
    /// The body.
    pub body: Wiped,
}

/// What a function made of a request it was allowed to finish: an answer, or its own refusal.
pub type Answer = Result<Response, Failure>;

/// A function's own refusal. Its words are for the caller: nobody else may read them, so they have no `Debug`.
pub struct Failure {
    /// Whose move it is.
    pub kind: FailureKind,
    /// In the function's words.
    pub message: String,
}

/// The variants of `bield:function/types.error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The request makes no sense to this function.
    BadRequest,
    /// It asks for something that is not there.
    NotFound,
    /// This caller may not.
    Denied,
    /// It contradicts what is stored; look again, then retry.
    Conflict,
    /// Anything else went wrong.
    Failed,
}
