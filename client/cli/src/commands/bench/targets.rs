//! Where requests go: each model's key, asked for again when it ends.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bield_envelope::SigningKey;
use bield_grant::CodeSelector;
use bield_load::{Ending, start_kind};
use bield_sdk::{
    Answered, Awaited, CallError, GatewayError, Home, KeyService, PackageReference, Randomness,
    Target, Tensor, Trust, now,
};

use super::super::call;
use crate::failure::Failure;

/// One package that is asked.
pub(super) struct Asked {
    package: PackageReference,
    code: CodeSelector,
    inputs: Vec<Tensor>,
    target: RwLock<Arc<Target>>,
    /// One thread asks for a new key at a time.
    renewing: Mutex<()>,
}

/// A request that was sealed before its time.
pub(super) struct Prepared {
    target: Arc<Target>,
    sealed: Vec<u8>,
    awaited: Awaited,
}

/// Who asks, and whom they trust.
pub(super) struct Caller<'a> {
    pub(super) home: &'a Home,
    pub(super) trust: &'a Trust,
    pub(super) user: &'a SigningKey,
}

impl Asked {
    /// The package, with inputs that `inputs` makes for it and that it takes.
    pub(super) fn find(
        service: &mut KeyService<'_>,
        package: PackageReference,
        codes: &[CodeSelector],
        user: &SigningKey,
        inputs: impl FnOnce(&Target) -> Result<Vec<Tensor>, Failure>,
    ) -> Result<Self, Failure> {
        let (target, code) = call::target(service, &package, codes)?;
        let inputs = inputs(&target)?;
        target.seal_call(user, inputs.clone(), Vec::new(), now(), &mut Randomness)?;
        Ok(Self {
            code: code.clone(),
            package,
            inputs,
            target: RwLock::new(Arc::new(target)),
            renewing: Mutex::new(()),
        })
    }

    /// `name@version` as attested.
    pub(super) fn name(&self) -> String {
        let target = self.target();
        format!("{}@{}", target.name(), target.version())
    }

    /// Seals a request.
    pub(super) fn prepare(&self, caller: &Caller<'_>) -> Result<Prepared, CallError> {
        let target = self.target();
        let inputs = self.inputs.clone();
        let (sealed, awaited) =
            target.seal_call(caller.user, inputs, Vec::new(), now(), &mut Randomness)?;
        Ok(Prepared {
            target,
            sealed,
            awaited,
        })
    }

    /// Sends it; once more with a new key when the one it was sealed to has ended.
    pub(super) fn send(
        &self,
        caller: &Caller<'_>,
        prepared: Result<Prepared, CallError>,
    ) -> Ending {
        let (used, sent) = match prepared {
            Ok(Prepared {
                target,
                sealed,
                awaited,
            }) => {
                let sent = target.call_sealed(&sealed, awaited, now);
                (target, sent)
            }
            Err(error) => (self.target(), Err(error)),
        };
        let sent = match sent {
            Err(error) if error.wants_fresh_target() => self.again(caller, &used, error),
            sent => sent,
        };
        ending(sent)
    }

    fn again(
        &self,
        caller: &Caller<'_>,
        used: &Arc<Target>,
        error: CallError,
    ) -> Result<Answered, CallError> {
        if self.renew(caller, used).is_none() {
            return Err(error);
        }
        let Prepared {
            target,
            sealed,
            awaited,
        } = self.prepare(caller)?;
        target.call_sealed(&sealed, awaited, now)
    }

    /// Asks the key service for the key, unless another thread has done so meanwhile.
    fn renew(&self, caller: &Caller<'_>, used: &Arc<Target>) -> Option<()> {
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(used, &self.target()) {
            return Some(());
        }
        let (home, trust) = (caller.home, caller.trust);
        let mut service = KeyService::connect(home, trust, now(), &mut Randomness).ok()?;
        let target = service.target_in(&self.package, &self.code, now()).ok()?;
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(target);
        Some(())
    }

    fn target(&self) -> Arc<Target> {
        let target = self.target.read();
        Arc::clone(&target.unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a call's end counts as.
fn ending(sent: Result<Answered, CallError>) -> Ending {
    let error = match sent {
        Ok(answered) => {
            let start = answered.feedback.as_ref().map(|told| &told["start"]);
            return Ending::Answered {
                start: start.and_then(|start| start_kind(start.as_str()?)),
            };
        }
        Err(error) => error,
    };
    let kind = match (&error, error.code()) {
        (_, Some(code)) => super::super::plain(code).chars().take(60).collect(),
        (CallError::Gateway(GatewayError::Unreachable { .. }), _) => "unreachable".to_owned(),
        (CallError::Open(_), _) => "other-answer".to_owned(),
        (CallError::Input(_) | CallError::Seal(_), _) => "not-sent".to_owned(),
        _ => "not-verified".to_owned(),
    };
    match is_turned_away(&error) {
        true => Ending::TurnedAway { kind },
        false => Ending::Failed { kind },
    }
}

/// Whether it was told to come back: 429, or 503 with a time after which.
fn is_turned_away(error: &CallError) -> bool {
    match error {
        CallError::Gateway(GatewayError::Refused {
            status,
            retry_after_ms,
            ..
        }) => *status == 429 || (*status == 503 && retry_after_ms.is_some()),
        CallError::Refused(refusal) => {
            matches!(refusal.retry, bield_protocol::refusal::Retry::After(_))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_come_back_is_told_apart_from_who_failed() {
        let refused = |status, retry_after_ms| {
            CallError::Gateway(GatewayError::Refused {
                status,
                code: "x\u{1b}".into(),
                message: String::new(),
                retry_after_ms,
            })
        };
        let kind = || "x\u{fffd}".to_owned();
        let away = Ending::TurnedAway { kind: kind() };
        let failed = Ending::Failed { kind: kind() };
        for (error, expected) in [
            (refused(429, None), &away),
            (refused(503, Some(1)), &away),
            (refused(503, None), &failed),
            (refused(502, Some(1)), &failed),
            (refused(400, None), &failed),
        ] {
            assert_eq!(&ending(Err(error)), expected);
        }
    }
}
