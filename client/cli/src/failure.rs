//! Every way a command can end badly, as one sentence and one exit code.

use std::process::ExitCode;

use bield_capsule::QueueError;
use bield_package::{PackError, PackageError};
use bield_proxy::ProxyError;
use bield_receipt::ReceiptError;
use bield_sdk::capsule::{
    AppendError, CapsuleHomeError, LogError, RecordsError, ReplicaError, StateFilesError,
};
use bield_sdk::{
    CallError, FileError, FunctionFileError, FunctionStateError, GatewayError, HomeError, Kind,
    NoOwner, ServiceError, TrustError,
};

/// A sentence for people, and what sort of failure it is for programs.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    /// The refusal's stable short name, when the one who refused gave one.
    code: Option<String>,
    /// What was found out before it failed; stands in the JSON beside the error.
    found: Option<Box<serde_json::Value>>,
}

impl Failure {
    /// Something on this machine has to be put right.
    pub(crate) fn local(message: impl ToString) -> Self {
        Self::new(Kind::Local, message)
    }

    /// Somebody said no, or something did not verify.
    pub(crate) fn refused(message: impl ToString) -> Self {
        Self::new(Kind::Refused, message)
    }

    pub(crate) fn new(kind: Kind, message: impl ToString) -> Self {
        Self {
            kind,
            message: message.to_string(),
            code: None,
            found: None,
        }
    }

    fn named(mut self, code: Option<&str>) -> Self {
        self.code = code.map(ToOwned::to_owned);
        self
    }

    /// Says more after the reason.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.message = format!("{}\n{more}", self.message);
        self
    }

    /// Adds what was found out.
    pub(crate) fn with(mut self, found: serde_json::Value) -> Self {
        self.found = Some(Box::new(found));
        self
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The failure as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let error = serde_json::json!({
            "kind": self.word(),
            "code": self.code,
            "message": self.message,
        });
        let mut value = match self.found.as_deref() {
            Some(found) if found.is_object() => found.clone(),
            _ => serde_json::json!({}),
        };
        value["error"] = error;
        value
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Refused => 1,
            Kind::Local => 2,
            Kind::Unreachable => 3,
        })
    }

    const fn word(&self) -> &'static str {
        match self.kind {
            Kind::Refused => "refused",
            Kind::Local => "local",
            Kind::Unreachable => "unreachable",
        }
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Service(error) => error.into(),
            error => Self::new(error.kind(), error),
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::local(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::local(error)
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        Self::local(error)
    }
}

impl From<NoOwner> for Failure {
    fn from(error: NoOwner) -> Self {
        Self::local(error)
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        Self::local(error)
    }
}

impl From<PackageError> for Failure {
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::Io(_) => Self::local(error),
            error => Self::refused(error),
        }
    }
}

impl From<ReceiptError> for Failure {
    fn from(error: ReceiptError) -> Self {
        Self::refused(error)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let failure = Self::new(error.kind(), &error).named(error.code());
        match error.code() {
            Some("not-registered") => failure.and("next: bield register"),
            _ => failure,
        }
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Self::new(error.kind(), &error).named(error.code())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(error.kind(), &error).named(error.code())
    }
}

impl From<FunctionFileError> for Failure {
    fn from(error: FunctionFileError) -> Self {
        Self::local(error)
    }
}

impl From<RecordsError> for Failure {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Io { .. } => Self::local(error),
            error => Self::refused(error),
        }
    }
}

impl From<FunctionStateError> for Failure {
    fn from(error: FunctionStateError) -> Self {
        Self::local(error)
    }
}

impl From<CapsuleHomeError> for Failure {
    fn from(error: CapsuleHomeError) -> Self {
        Self::local(error)
    }
}

impl From<StateFilesError> for Failure {
    fn from(error: StateFilesError) -> Self {
        match error {
            StateFilesError::Io { .. }
            | StateFilesError::None { .. }
            | StateFilesError::Several { .. } => Self::local(error),
            error => Self::refused(error),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::new(error.kind(), &error).named(match &error {
            LogError::Replica(error) => error.code(),
            _ => None,
        })
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        Self::new(error.kind(), &error).named(error.code())
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        LogError::from(error).into()
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        AppendError::from(error).into()
    }
}
