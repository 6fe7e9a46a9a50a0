//! A function, compiled and ready to be called on buckets in memory.

use std::time::Duration;

use bield_function::{FailureKind, Function, Host, Limits, Request, Settings};
use bield_guests::Buckets;
use serde_json::Value;

/// Its kind and words.
pub(crate) type Refused = (FailureKind, String);

/// A function on an engine of its own.
pub(crate) struct Guest {
    function: Function,
    limits: Limits,
    // The engine's clock ticks as long as this.
    _host: Host,
}

impl Guest {
    pub(crate) fn of(component: &[u8]) -> Self {
        let host = Host::new(Settings::Machine, 12).unwrap();
        let function = host.load(&host.compile(component).unwrap()).unwrap();
        // On a busy machine, computing may take long; what is tested is not how long.
        let limits = Limits {
            deadline: Duration::from_secs(60),
            ..Limits::default()
        };
        Self {
            function,
            limits,
            _host: host,
        }
    }

    /// Media type and body of the answer.
    pub(crate) fn whole(
        &self,
        buckets: &Buckets,
        caller: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(String, Vec<u8>), Refused> {
        let request = Request {
            path: path.to_owned(),
            content_type: String::new(),
            body: body.to_vec().into(),
            caller: caller.to_owned(),
        };
        let answer = self
            .function
            .call(request, Box::new(buckets.request()), &self.limits);
        match answer.unwrap_or_else(|stopped| panic!("{path}: {stopped}; {:?}", buckets.lines())) {
            Ok(response) => Ok((response.content_type, response.body.to_vec())),
            Err(failure) => Err((failure.kind, failure.message)),
        }
    }

    pub(crate) fn call(
        &self,
        buckets: &Buckets,
        caller: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        self.whole(buckets, caller, path, body)
            .map(|(_, body)| body)
    }

    pub(crate) fn json(
        &self,
        buckets: &Buckets,
        caller: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, Refused> {
        let answer = self.call(buckets, caller, path, body.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }
}
