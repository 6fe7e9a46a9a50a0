//! A function, compiled and ready to be called on buckets in memory.

use std::time::Duration;

use bield_function::{
    Answer, Compiled, FailureKind, Function, Host, Limits, Request, Settings, Stopped,
};
use bield_guests::Buckets;
use serde_json::Value;

use crate::kept::compiled;

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
    /// Of a component that several tests, or later runs, have too.
    pub(crate) fn of(component: &[u8]) -> Self {
        let host = Self::host();
        let code = compiled(&host, component);
        Self::ready(host, &code)
    }

    /// Of a component that was built for one test alone.
    pub(crate) fn once(component: &[u8]) -> Self {
        let host = Self::host();
        let code = host.compile(component).unwrap();
        Self::ready(host, &code)
    }

    fn host() -> Host {
        Host::new(Settings::Machine, 12).unwrap()
    }

    fn ready(host: Host, code: &Compiled) -> Self {
        // On a busy machine, computing may take long; what is tested is not how long.
        let limits = Limits {
            deadline: Duration::from_secs(60),
            ..Limits::default()
        };
        Self {
            function: host.load(code).unwrap(),
            limits,
            _host: host,
        }
    }

    /// The same under other limits.
    pub(crate) fn limited(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Media type and body of the answer.
    pub(crate) fn whole(
        &self,
        buckets: &Buckets,
        caller: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(String, Vec<u8>), Refused> {
        let answer = self.ask(buckets, caller, path, body);
        match answer.unwrap_or_else(|stopped| panic!("{path}: {stopped}; {:?}", buckets.lines())) {
            Ok(response) => Ok((response.content_type, response.body.to_vec())),
            Err(failure) => Err((failure.kind, failure.message)),
        }
    }

    /// Also for what the host ends.
    pub(crate) fn ask(
        &self,
        buckets: &Buckets,
        caller: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Answer, Stopped> {
        let request = Request {
            path: path.to_owned(),
            content_type: String::new(),
            body: body.to_vec().into(),
            caller: caller.to_owned(),
        };
        let world = Box::new(buckets.request());
        self.function.call(request, world, &self.limits)
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
