//! The key service, after it has proved itself.
//!
//! ```text
//! TCP ─▶ TLS 1.3 ─▶ gate: evidence verified, appraised against Trust, bound to this session ─▶ KeyService
//! ```
//!
//! Always true: a value of this type is a live session with code that meets the trust; commands are
//! numbered from 0 in it, each number used once. Any broken exchange ends it: connect again.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use bield_envelope::{Principal, Time};
use bield_evidence::{Appraised, Check, Measurement, Policy, Roots};
use bield_protocol::service::{Inspection, PackageReference, Reply, Request};
use bield_session::{Expect, Freshness, Local, Role, Session};
use rand_core::CryptoRng;

use crate::verification;
use crate::{KnownService, ServiceError, Target, TargetError, Trust};

/// Oldest evidence of a key service that is accepted; it renews its own well before.
pub const SERVICE_EVIDENCE_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for one read or write: a service on real hardware quotes for up to a second.
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

/// An attested session with the key service.
pub struct KeyService<'a> {
    trust: &'a Trust,
    /// Taken only on drop.
    session: Option<Session<TcpStream>>,
    principal: Principal,
    pub(crate) sequence: u64,
}

impl<'a> KeyService<'a> {
    /// Connects, and returns only once the other end's evidence has met `trust`.
    ///
    /// # Errors
    /// Nobody there, or somebody who does not pass.
    pub fn connect(
        trust: &'a Trust,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, ServiceError> {
        let session = open(
            trust,
            trust.policy().clone(),
            trust.roots().clone(),
            now,
            entropy,
        )?;
        let address = || trust.key_service().to_owned();
        let principal = session.peer().service;
        let principal = principal.ok_or_else(|| ServiceError::Nameless { address: address() })?;
        if session.peer().appraised.is_none() {
            return Err(ServiceError::Nameless { address: address() });
        }
        Ok(Self {
            trust,
            session: Some(session),
            principal,
            sequence: 0,
        })
    }

    /// Who it is: signs workers' certificates, anchors receipts.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        self.principal
    }

    /// What this session was opened under.
    #[must_use]
    pub const fn trust(&self) -> &'a Trust {
        self.trust
    }

    /// Its evidence, verified and accepted.
    ///
    /// # Panics
    /// Never: no value is made without it.
    #[must_use]
    pub fn appraised(&self) -> &Appraised {
        let appraised = self.session().peer().appraised.as_ref();
        appraised.expect("checked when the session was opened")
    }

    /// What [`Home::remember_service`](crate::Home::remember_service) keeps, to check receipts offline.
    #[must_use]
    pub fn known(&self) -> KnownService {
        KnownService {
            principal: self.principal,
            measurement: self.appraised().measurement().to_string(),
            simulated: self.appraised().simulated(),
        }
    }

    /// Every check that was made of it, and those that were not.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        verification::all(self.trust, self.appraised().checks(), Some(self.principal))
    }

    /// How it is.
    ///
    /// # Errors
    /// The session broke, or it refuses.
    pub fn inspect(&mut self) -> Result<Inspection, ServiceError> {
        match self.exchange(&Request::Inspect)? {
            Reply::Inspection(inspection) => Ok(inspection),
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// The verified way to call one package inside one code.
    ///
    /// # Errors
    /// The code is not trusted, the service refuses, or what it names is not what was asked for.
    pub fn target(
        &mut self,
        package: &PackageReference,
        code: &Measurement,
        now: Time,
    ) -> Result<Target, ServiceError> {
        if !self.trust.code().contains(code) {
            return Err(TargetError::CodeNotTrusted { code: code.clone() }.into());
        }
        let asked = Request::KeyConfiguration(package.clone(), code.clone());
        match self.exchange(&asked)? {
            Reply::KeyConfiguration(named) => Ok(Target::verify(
                named,
                package,
                code,
                self.principal,
                self.trust,
                now,
            )?),
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// Sends one message and receives its answer; a refusal is an error.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Reply, ServiceError> {
        let address = self.trust.key_service();
        let broken = |error| ServiceError::Session {
            address: address.to_owned(),
            error: Box::new(error),
        };
        let session = self.session.as_mut().expect(OPEN);
        session.send(&request.encode()).map_err(broken)?;
        let answer = session.receive().map_err(broken)?;
        match Reply::decode(&answer)? {
            Reply::Refused(refusal) => Err(ServiceError::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// What commands in this session are bound to.
    pub(crate) fn binding(&self) -> [u8; 32] {
        self.session().binding()
    }

    fn session(&self) -> &Session<TcpStream> {
        self.session.as_ref().expect(OPEN)
    }
}

/// Says goodbye, so that the service can tell an end from a broken line.
impl Drop for KeyService<'_> {
    fn drop(&mut self) {
        self.session.take().map(Session::close);
    }
}

const OPEN: &str = "a session is taken only on drop";

/// Opens a session with whoever meets `policy` under `roots` at the trust's address.
pub(crate) fn open(
    trust: &Trust,
    policy: Policy,
    roots: Roots,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Session<TcpStream>, ServiceError> {
    let address = trust.key_service();
    let stream = dial(address).map_err(|error| ServiceError::Unreachable {
        address: address.to_owned(),
        error,
    })?;
    let freshness = Freshness::Cached {
        age_max: SERVICE_EVIDENCE_AGE_MAX,
    };
    let expect = Expect::attested(
        Role::KeyService,
        roots,
        policy,
        trust.principal(),
        freshness,
    );
    let provider = bield_session::provider();
    bield_session::connect(stream, Local::Client(&provider), &expect, now, entropy).map_err(
        |error| ServiceError::Session {
            address: address.to_owned(),
            error: Box::new(error),
        },
    )
}

fn dial(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WAIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(EXCHANGE_WAIT))?;
                stream.set_write_timeout(Some(EXCHANGE_WAIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
