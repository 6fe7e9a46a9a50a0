//! The same over attested sessions with a real `bield-keys` process.
//!
//! ```text
//! this process ──TCP──▶ gateway ──door──▶ bield-keys ──door──▶ gateway ──▶ disk
//!    │ as a client: the service's evidence verified      │ as a runtime: both evidences verified
//! ```
//!
//! The TEE is the software one: its quotes cost a signature in a process beside, a hardware's cost
//! milliseconds; verifying them costs the same. Both sides of each handshake share this machine's cores, and the
//! gateway logs all it can (`RUST_LOG=trace`), as in the tests that this deployment is made for.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bield_end_to_end::{Instance, Plan, Site, tiny_model};
use bield_envelope::{Digest, Signed, SigningKey};
use bield_evidence::{HardeningStatement, Measurement, configuration_digest};
use bield_platform::{Tee, software};
use bield_protocol::service::{Command, LeaseRequest, Operation, Reply, Request};
use bield_sdk::{Randomness, now};
use bield_session::{
    Expect, Freshness, Identity, Local, Role, Session, SessionKey, connect, provider,
};

use super::Effort;
use super::cast;
use super::load::{Done, closed};
use crate::bars::{Bar, median};
use crate::capsule::peers::etcd::{Etcd, agent};

/// Callers with an open session each.
const OPEN: usize = 16;
/// Sessions that are opened at a time.
const OPENING: usize = 4;
/// Of the key service's ration of fresh quotes: 200 at once, then 50 a second. Fewer are asked for.
const FRESH_MAX: u64 = 150;
/// Of the 20 000 leases that may run of one owner's packages.
const LEASES_MAX: u64 = 18_000;
/// As a client of the SDK takes evidence.
const EVIDENCE_AGE_MAX: Duration = Duration::from_secs(600);

/// Handshakes, then questions over sessions that stay open.
pub(super) fn measured(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let site = Site::new(Plan::default(), |config| {
        config.orders_per_minute = 10_000_000;
    })?;
    let instance = site.start("keys")?;
    let span = effort.span();
    let etcd = Etcd::start(folder)?;
    let mut rows: [Vec<Done>; 6] = Default::default();
    for round in 0..effort.rounds() {
        eprintln!("  sessions");
        // Another owner each time: the leases of one are limited.
        let owner = site.person(&format!("owner-{round}"))?;
        let model = tiny_model("sessions");
        let package = owner.pack("sessions", &model)?;
        owner.offer(&package, &model)?;
        let bench = Bench::new(&site, &instance, &owner.key, package.digest)?;
        bench.admit_this_program()?;
        rows[0].push(bench.handshakes(span)?);
        rows[1].push(bench.fresh_leases(span, FRESH_MAX / effort.rounds() as u64)?);
        rows[2].push(bench.grants(span)?);
        rows[3].push(bench.leases(span)?);
        if let Some(etcd) = &etcd {
            rows[4].push(asks(span, |caller, number, agent| {
                let key = format!("{caller:08x}{number:08x}");
                etcd.put(agent, &key, &"v".repeat(320))
            })?);
            rows[5].push(asks(span, |caller, _, agent| {
                etcd.get(agent, &format!("{caller:08x}{:08x}", 1))
            })?);
        }
    }
    tell(&rows, bars);
    Ok(())
}

fn tell(rows: &[Vec<Done>; 6], bars: &mut Vec<Bar>) {
    let names = [
        (
            format!("attested handshakes of clients, cached evidence, {OPENING} at a time"),
            "TCP, TLS 1.3, the service's evidence verified and appraised; software TEE",
        ),
        (
            format!("leases, each over a fresh attested session, {OPENING} at a time"),
            "both evidences made, verified and appraised for it; software TEE. The service's ration of fresh quotes \
             (200 at once, then 50/s) was not reached",
        ),
        (
            format!("grants over open sessions, {OPEN} callers"),
            "a session each; signed on the way by the client; gateway and door of a real process; synced",
        ),
        (
            format!("leases over open sessions, {OPEN} callers"),
            "a session each; gateway and door of a real process; synced",
        ),
        (
            format!("etcd puts over the loopback, {OPEN} callers"),
            "synced; in the clear, HTTP/JSON over ureq (gRPC would be faster), no signature checked",
        ),
        (
            format!("etcd gets over the loopback, {OPEN} callers"),
            "linearizable; in the clear",
        ),
    ];
    let middle = |of: &[Done], value: fn(&Done) -> f64| median(of.iter().map(value).collect());
    for ((name, note), done) in names.into_iter().zip(rows) {
        if done.is_empty() {
            let why = "not installed: apt-get install etcd-server";
            bars.push(Bar::missing(name, why));
            continue;
        }
        let (p50, p99) = (middle(done, |done| done.p50), middle(done, |done| done.p99));
        let note = format!("p50 {p50:.2} ms, p99 {p99:.2} ms; {note}");
        bars.push(Bar::told(name, middle(done, |done| done.rate), "/s", note));
    }
    for (name, ours, theirs) in [("grants ÷ etcd puts", 2, 4), ("leases ÷ etcd gets", 3, 5)] {
        if rows[theirs].is_empty() {
            continue;
        }
        let ratios = rows[ours].iter().zip(&rows[theirs]);
        let ratios = ratios.map(|(ours, theirs)| ours.rate / theirs.rate);
        bars.push(Bar::told(
            format!("{name}, over sessions and loopback, {OPEN} callers"),
            median(ratios.collect()),
            "ratio",
            "ours encrypted, attested, signatures checked, a lease a durable write; etcd none of it"
                .to_owned(),
        ));
    }
}

fn asks(
    span: Duration,
    ask: impl Fn(usize, u64, &ureq::Agent) -> Result<()> + Sync,
) -> Result<Done> {
    let ask = &ask;
    let callers = (0..OPEN).map(|caller| {
        let (agent, mut number) = (agent(), 0);
        move || {
            number += 1;
            ask(caller, number, &agent).map(|()| true)
        }
    });
    closed(callers.collect(), span)
}

/// This process, as clients and as runtimes.
struct Bench<'a> {
    keys: SocketAddr,
    /// What a client takes.
    cached: Expect,
    /// What a runtime takes.
    fresh: Expect,
    tee: Arc<dyn Tee>,
    owner: &'a SigningKey,
    package: Digest,
    numbers: AtomicU64,
}

impl<'a> Bench<'a> {
    fn new(
        site: &Site,
        instance: &Instance,
        owner: &'a SigningKey,
        package: Digest,
    ) -> Result<Self> {
        let trusted = site.trust().service;
        let expect = |freshness| -> Result<Expect> {
            let (roots, policy) = (trusted.roots()?, trusted.clone().into_policy()?);
            let role = Role::KeyService;
            Ok(Expect::attested(role, roots, policy, None, freshness))
        };
        let socket = site.host().join("machine-0.sock");
        let tee = software::connect(&socket, configuration_digest(b"bench"))?;
        Ok(Self {
            keys: instance.keys,
            cached: expect(Freshness::Cached {
                age_max: EVIDENCE_AGE_MAX,
            })?,
            fresh: expect(Freshness::Fresh)?,
            tee: Arc::new(tee),
            owner,
            package,
            numbers: AtomicU64::new(0),
        })
    }

    /// Grants the package to the code that this process is; all later grants are for other code, so that leases
    /// stay as small.
    fn admit_this_program(&self) -> Result<()> {
        self.order(&mut self.as_client()?, 0, self.tee.measurement())
    }

    fn order(
        &self,
        session: &mut Session<TcpStream>,
        sequence: u64,
        code: &Measurement,
    ) -> Result<()> {
        let number = self.numbers.fetch_add(1, Relaxed);
        let grant = cast::grant(number, self.package, self.owner.principal(), code);
        let command = Command {
            session: session.binding(),
            sequence,
            operation: Operation::Grant(Signed::sign(self.owner, grant).into_signed()),
        };
        let signed = Signed::sign(self.owner, command).into_signed();
        cast::done(ask(session, &Request::Command(signed))?)
    }

    fn lease(&self, session: &mut Session<TcpStream>) -> Result<()> {
        let request = LeaseRequest {
            package: self.package,
            returned: None,
        };
        cast::done(ask(session, &Request::Lease(request))?)
    }

    fn as_client(&self) -> Result<Session<TcpStream>> {
        let (stream, provider) = (self.dial()?, provider());
        let local = Local::Client(&provider);
        Ok(connect(
            stream,
            local,
            &self.cached,
            now(),
            &mut Randomness,
        )?)
    }

    fn as_runtime(&self, identity: &Identity) -> Result<Session<TcpStream>> {
        let (stream, local) = (self.dial()?, Local::Attested(identity));
        Ok(connect(stream, local, &self.fresh, now(), &mut Randomness)?)
    }

    fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.keys)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn identity(&self) -> Result<Identity> {
        let tee = Arc::clone(&self.tee);
        Ok(Identity::issue(
            provider(),
            SessionKey::generate(&mut Randomness),
            Role::Runtime,
            None,
            self.tee.kind(),
            HardeningStatement::default(),
            now(),
            Duration::from_secs(3600),
            Box::new(move |data| tee.evidence(data).map_err(|error| error.to_string())),
        )?)
    }

    fn handshakes(&self, span: Duration) -> Result<Done> {
        let callers = (0..OPENING).map(|_| {
            move || {
                self.as_client()?.close();
                Ok(true)
            }
        });
        closed(callers.collect(), span)
    }

    fn fresh_leases(&self, span: Duration, most: u64) -> Result<Done> {
        let (left, identity) = (AtomicU64::new(most), self.identity()?);
        let callers = (0..OPENING).map(|_| {
            let (left, identity) = (&left, &identity);
            move || {
                let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
                if taken.is_err() {
                    return Ok(false);
                }
                let mut session = self.as_runtime(identity)?;
                self.lease(&mut session)?;
                session.close();
                Ok(true)
            }
        });
        closed(callers.collect(), span)
    }

    fn grants(&self, span: Duration) -> Result<Done> {
        let others = cast::other_codes()?;
        let sessions = (0..OPEN).map(|_| self.as_client());
        let callers = sessions.collect::<Result<Vec<_>>>()?.into_iter();
        let callers = callers.map(|mut session| {
            let (mut sequence, others) = (0, &others);
            move || {
                let other = &others[sequence as usize % others.len()];
                self.order(&mut session, sequence, other)?;
                sequence += 1;
                Ok(true)
            }
        });
        closed(callers.collect(), span)
    }

    fn leases(&self, span: Duration) -> Result<Done> {
        let identity = self.identity()?;
        let sessions = (0..OPEN).map(|_| self.as_runtime(&identity));
        let callers = sessions.collect::<Result<Vec<_>>>()?.into_iter();
        let left = AtomicU64::new(LEASES_MAX);
        let callers = callers.map(|mut session| {
            let left = &left;
            move || {
                let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
                if taken.is_err() {
                    return Ok(false);
                }
                self.lease(&mut session).map(|()| true)
            }
        });
        closed(callers.collect(), span)
    }
}

fn ask(session: &mut Session<TcpStream>, request: &Request) -> Result<Reply> {
    session.send(&request.encode())?;
    let reply = session.receive()?;
    Reply::decode(&reply).map_err(|error| anyhow!("an answer that is none: {error}"))
}
