//! Grants and leases a second of the real service in this process, on a real disk.
//!
//! ```text
//! callers (1 … 256 threads) ──▶ turn: signatures ──▶ queue ──▶ sequencer: check, apply, seal, fsync (, witness) ──▶ reply
//! ```
//!
//! In the path: decoded messages in, replies out; both signatures of an order checked; state, audience keys,
//! record sealed and signed, appended and synced. Not in the path: sessions (`sessions`), a runtime's evidence,
//! which is appraised once as at the beginning of a session, and the signatures of clients, made beforehand.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use bield_envelope::{Digest, Principal, Signed, SigningKey};
use bield_evidence::{Appraised, Measurement};
use bield_keys::testing::{InProcess, Options};
use bield_protocol::service::{Operation, Request};
use tempfile::TempDir;

use super::Effort;
use super::cast::{self, Witness};
use super::disk::{Disk, Written};
use super::load::{Done, closed};
use crate::bars::{Bar, median};
use crate::capsule::bounds::syncs;
use crate::capsule::peers::etcd::{Etcd, agent};

/// How many ask at once.
const CALLERS: [usize; 4] = [1, 16, 64, 256];
/// Grants that a lease of the measured package carries.
const GRANTS_EACH_LEASE: u64 = 10;
/// Owners of packages that are leased.
const OWNERS: u64 = 16;
/// Users that grants are for.
const USERS: usize = 100;
/// A put of etcd has as many bytes as a signed grant.
const VALUE_BYTES: usize = 320;

/// One instance, no witness, next to etcd.
pub(super) fn alone(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let etcd = Etcd::start(folder)?;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds() {
        for callers in CALLERS {
            // A new one each time: leases that run are limited, and state and log stay as small for all.
            let scene = Scene::new(folder, cast::options())?;
            eprintln!("  grants and leases, {callers} callers");
            let grants = scene.grants(callers, effort)?;
            let leases = scene.leases(callers, effort.span())?;
            let puts = etcd.as_ref().map(|etcd| puts(etcd, callers, effort));
            let gets = etcd.as_ref().map(|etcd| gets(etcd, callers, effort));
            let bytes = grants.record_bytes as usize;
            let device = syncs(folder, bytes, effort.span() / 2)?.rate;
            let grown = grown(folder, bytes, effort.span() / 2)?;
            rounds.push(Round {
                callers,
                grants,
                leases,
                puts: puts.transpose()?,
                gets: gets.transpose()?,
                device,
                grown,
                bare: Bare::measure(effort.span() / 4)?,
            });
        }
    }
    for callers in CALLERS {
        let of: Vec<_> = rounds
            .iter()
            .filter(|round| round.callers == callers)
            .collect();
        told(&of, callers, bars);
    }
    if etcd.is_none() {
        let why = "not installed: apt-get install etcd-server";
        bars.push(Bar::missing("grants and leases ÷ etcd".to_owned(), why));
    }
    Ok(())
}

/// With a witness, whose own synced write is in the path of every record.
pub(super) fn witnessed(
    programs: &Path,
    folder: &Path,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    let callers = 64;
    let witness = Witness::start(programs, folder)?;
    let verifier = witness.verifier.parse()?;
    let options = cast::options().with_witnesses(vec![(verifier, witness.address.clone())]);
    let (mut grants, mut leases, mut alone) = (vec![], vec![], vec![]);
    for _ in 0..effort.rounds() {
        eprintln!("  grants and leases with a witness, {callers} callers");
        let scene = Scene::new(folder, options.clone())?;
        grants.push(scene.grants(callers, effort)?);
        leases.push(scene.leases(callers, effort.span())?);
        let scene = Scene::new(folder, cast::options())?;
        alone.push(scene.leases(callers, effort.span())?);
    }
    let what = "a bield-witness process on the loopback and the same disk cosigns each record";
    let name = format!("grants, {callers} callers, 1 witness");
    push(&grants.iter().collect::<Vec<_>>(), &name, what, bars);
    let name = format!("leases, {callers} callers, 1 witness");
    push(&leases.iter().collect::<Vec<_>>(), &name, what, bars);
    let ratios = leases
        .iter()
        .zip(&alone)
        .map(|(with, without)| with.done.rate / without.done.rate);
    bars.push(Bar::told(
        format!("leases with a witness ÷ without, {callers} callers"),
        median(ratios.collect()),
        "ratio",
        "a record then costs two syncs, one after the other, and a round trip".to_owned(),
    ));
    Ok(())
}

/// What was measured side by side.
struct Round {
    callers: usize,
    grants: Counted,
    leases: Counted,
    puts: Option<Done>,
    gets: Option<Done>,
    /// Synced writes of as many bytes as a record has, a second.
    device: f64,
    /// The same at the end of a file that grows, as a log does.
    grown: f64,
    bare: Bare,
}

/// A loop, and the records it took.
struct Counted {
    done: Done,
    records: f64,
    record_bytes: f64,
    commits: f64,
}

impl Counted {
    fn batch(&self) -> f64 {
        self.done.count as f64 / self.records
    }
}

fn told(rounds: &[&Round], callers: usize, bars: &mut Vec<Bar>) {
    let asking = asking(callers);
    let grants: Vec<_> = rounds.iter().map(|round| &round.grants).collect();
    let leases: Vec<_> = rounds.iter().map(|round| &round.leases).collect();
    let orders = "both signatures checked, synced; signed beforehand by the clients";
    push(&grants, &format!("grants, {asking}"), orders, bars);
    let kept = "with 10 grants, logged and synced; evidence appraised once a session";
    push(&leases, &format!("leases, {asking}"), kept, bars);

    let middle = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(|r| value(r)).collect());
    // With more callers it is the processor that a record waits for.
    if callers == 1 {
        let name = "bare fdatasync ÷ commits, grants, 1 caller".to_owned();
        let note = format!(
            "write + fdatasync of {:.0} B into a preallocated file {:.0}/s, at the end of one that grows, as a log \
             does, {:.0}/s",
            middle(&|round| round.grants.record_bytes),
            middle(&|round| round.device),
            middle(&|round| round.grown)
        );
        let ratio = middle(&|round| round.device / round.grants.commits);
        bars.push(Bar::told(name, ratio, "ratio", note));
        bars.push(Bar::told(
            "the same into a file that grows ÷ commits".to_owned(),
            middle(&|round| round.grown / round.grants.commits),
            "ratio",
            "what is left is checking, sealing, two threads waking each other".to_owned(),
        ));
    }
    bars.push(Bar::told(
        format!("crypto bound ÷ grants/s, {asking}"),
        middle(&|round| round.bare.grants(round.grants.batch()) / round.grants.done.rate),
        "ratio",
        format!(
            "bare Ed25519 on all cores: 2 verifications a grant ({:.0} µs each), 1 signature a record ({:.0} µs)",
            middle(&|round| round.bare.verify * 1e6),
            middle(&|round| round.bare.sign * 1e6)
        ),
    ));
    let name = "one member, WAL synced, no TLS, no attestation, no encryption, no signature checked; HTTP/JSON over \
                ureq, an agent a connection (gRPC would be faster); ours in process, without a session";
    for (what, peer, of) in [
        ("puts", "puts (synced)", true),
        ("gets", "gets (linearizable)", false),
    ] {
        let theirs = |round: &Round| if of { round.puts } else { round.gets };
        let found: Option<Vec<Done>> = rounds.iter().map(|round| theirs(round)).collect();
        let Some(found) = found else { continue };
        push_done(&found, &format!("etcd {peer}, {asking}"), name, bars);
        let ours = if of { "grants" } else { "leases" };
        bars.push(Bar::told(
            format!("{ours} ÷ etcd {what}, {asking}"),
            middle(&|round| {
                let own = if of { &round.grants } else { &round.leases };
                own.done.rate / theirs(round).map_or(f64::NAN, |done| done.rate)
            }),
            "ratio",
            if of {
                "both durable before they are acknowledged".to_owned()
            } else {
                "a lease is a durable write here; a get only reads".to_owned()
            },
        ));
    }
}

fn asking(callers: usize) -> String {
    match callers {
        1 => "1 caller".to_owned(),
        more => format!("{more} callers"),
    }
}

fn push(counted: &[&Counted], name: &str, what: &str, bars: &mut Vec<Bar>) {
    let done: Vec<_> = counted.iter().map(|counted| counted.done).collect();
    let batch = median(counted.iter().map(|counted| counted.batch()).collect());
    let commits = median(counted.iter().map(|counted| counted.commits).collect());
    let note = format!("{batch:.1} a record, {commits:.0} records/s, 1 fsync each; {what}");
    push_done(&done, name, &note, bars);
}

fn push_done(done: &[Done], name: &str, note: &str, bars: &mut Vec<Bar>) {
    let middle = |value: fn(&Done) -> f64| median(done.iter().map(value).collect());
    let rate = middle(|done| done.rate);
    bars.push(Bar::told(name.to_owned(), rate, "/s", note.to_owned()));
    bars.push(Bar::told(
        format!("{name}: p99"),
        middle(|done| done.p99),
        "ms",
        format!("p50 {:.2} ms", middle(|done| done.p50)),
    ));
}

/// A running service with an owner and two packages: one to lease, one to grant.
struct Scene {
    service: InProcess,
    written: Arc<Written>,
    owner: SigningKey,
    /// One of each owner, leased in turn: running leases are limited by owner.
    leased: Vec<Digest>,
    granted: Digest,
    others: Vec<Measurement>,
    runtime: Arc<Appraised>,
    users: Vec<Principal>,
    numbers: AtomicU64,
    _folder: TempDir,
}

impl Scene {
    fn new(folder: &Path, options: Options) -> Result<Self> {
        let folder = TempDir::new_in(folder)?;
        let (disk, written) = Disk::synced(folder.path());
        let service = cast::start(disk, &options)?;
        let owner = cast::key(1);
        let leased = (0..OWNERS).map(|number| {
            let owner = cast::key(500 + number);
            Ok((cast::settle(&service, &owner, "leased")?, owner))
        });
        let leased: Vec<(Digest, SigningKey)> = leased.collect::<Result<_>>()?;
        let granted = cast::settle(&service, &owner, "granted-only")?;
        let scene = Self {
            service,
            written,
            owner,
            leased: leased.iter().map(|(package, _)| *package).collect(),
            granted,
            others: cast::other_codes()?,
            runtime: cast::appraised()?,
            users: (0..USERS)
                .map(|user| cast::key(1000 + user as u64).principal())
                .collect(),
            numbers: AtomicU64::new(0),
            _folder: folder,
        };
        let code = cast::code()?;
        for (package, owner) in &leased {
            for _ in 0..GRANTS_EACH_LEASE {
                let grant = Signed::sign(owner, scene.draft(*package, &code)).into_signed();
                cast::order(&scene.service, owner, Operation::Grant(grant))?;
            }
        }
        Ok(scene)
    }

    fn draft(&self, package: Digest, code: &Measurement) -> bield_grant::Grant {
        let number = self.numbers.fetch_add(1, Relaxed);
        let user = self.users[number as usize % USERS];
        cast::grant(number, package, user, code)
    }

    /// For code that is never leased anything.
    fn draft_other(&self) -> bield_grant::Grant {
        let number = self.numbers.load(Relaxed) as usize;
        self.draft(self.granted, &self.others[number % self.others.len()])
    }

    /// Orders grants that were signed beforehand.
    fn grants(&self, callers: usize, effort: &Effort) -> Result<Counted> {
        let all = if callers == 1 {
            effort.orders() / 4
        } else {
            effort.orders()
        };
        let sessions: Vec<_> = (0..callers)
            .map(|_| cast::session(self.numbers.fetch_add(1, Relaxed), None))
            .collect();
        let signed = std::thread::scope(|scope| {
            let halves = sessions.chunks(callers.div_ceil(2)).map(|sessions| {
                scope.spawn(move || {
                    let each = all.div_ceil(callers) as u64;
                    let order = |session, sequence| {
                        let grant = Signed::sign(&self.owner, self.draft_other());
                        let operation = Operation::Grant(grant.into_signed());
                        let order = cast::command(session, sequence, &self.owner, operation);
                        Request::Command(order)
                    };
                    let of = |session| (0..each).map(|at| order(session, at)).collect::<Vec<_>>();
                    sessions.iter().map(of).collect::<Vec<_>>()
                })
            });
            let halves: Vec<_> = halves.collect();
            let mut signed = Vec::new();
            for half in halves {
                match half.join() {
                    Ok(half) => signed.extend(half),
                    Err(_) => bail!("signing panicked"),
                }
            }
            Ok(signed)
        })?;
        let callers = sessions
            .into_iter()
            .zip(signed)
            .map(|(mut session, signed)| {
                let mut signed = signed.into_iter();
                move || {
                    let Some(order) = signed.next() else {
                        return Ok(false);
                    };
                    cast::done(self.service.answer(&mut session, order))?;
                    Ok(true)
                }
            });
        self.counted(callers.collect(), effort.span())
    }

    fn leases(&self, callers: usize, span: Duration) -> Result<Counted> {
        let callers = (0..callers).map(|caller| {
            let number = self.numbers.fetch_add(1, Relaxed);
            let mut session = cast::session(number, Some(Arc::clone(&self.runtime)));
            let mut packages = self.leased.iter().cycle().skip(caller).copied();
            move || {
                let package = packages.next().context("no package")?;
                let leased = cast::lease(&self.service, &mut session, package)?;
                let leased = leased.map_err(|code| anyhow!("refused: {code}"))?;
                anyhow::ensure!(leased.grants.len() as u64 == GRANTS_EACH_LEASE);
                Ok(true)
            }
        });
        self.counted(callers.collect(), span)
    }

    fn counted<C>(&self, callers: Vec<C>, span: Duration) -> Result<Counted>
    where
        C: FnMut() -> Result<bool> + Send,
    {
        let written = || {
            let appends = self.written.appends.load(Relaxed);
            (appends as f64, self.written.bytes.load(Relaxed) as f64)
        };
        let (before, begin) = (written(), Instant::now());
        let done = closed(callers, span)?;
        let (seconds, after) = (begin.elapsed().as_secs_f64(), written());
        let records = (after.0 - before.0).max(1.0);
        Ok(Counted {
            done,
            records,
            record_bytes: (after.1 - before.1) / records,
            commits: records / seconds,
        })
    }
}

fn puts(etcd: &Etcd, callers: usize, effort: &Effort) -> Result<Done> {
    let callers = (0..callers).map(|caller| {
        let (agent, value, mut number) = (agent(), "v".repeat(VALUE_BYTES), 0_u64);
        move || {
            number += 1;
            let key = format!("{:016x}", ((caller as u64) << 32) | number);
            etcd.put(&agent, &key, &value).map(|()| true)
        }
    });
    closed(callers.collect(), effort.span())
}

fn gets(etcd: &Etcd, callers: usize, effort: &Effort) -> Result<Done> {
    let callers = (0..callers).map(|caller| {
        let agent = agent();
        // The first of those that `puts` put.
        let key = format!("{:016x}", ((caller as u64) << 32) | 1);
        move || etcd.get(&agent, &key).map(|()| true)
    });
    closed(callers.collect(), effort.span())
}

/// Appends and syncs `size` bytes, one after the other: how many a second.
fn grown(folder: &Path, size: usize, span: Duration) -> Result<f64> {
    let file = tempfile::tempfile_in(folder)?;
    let (bytes, mut at) = (vec![0x5a; size.max(1)], 0);
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < span {
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += bytes.len() as u64;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// Bare Ed25519, in seconds, on one core.
struct Bare {
    verify: f64,
    sign: f64,
}

impl Bare {
    fn measure(span: Duration) -> Result<Self> {
        let refused = |_| anyhow!("the cryptographic library refused a key");
        let pair = Ed25519KeyPair::generate().map_err(refused)?;
        let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref().to_vec());
        let message = [0x5a; VALUE_BYTES];
        let signature = pair.sign(&message);
        let each = |what: &dyn Fn() -> bool| -> Result<f64> {
            let (begin, mut count) = (Instant::now(), 0_u32);
            while begin.elapsed() < span {
                anyhow::ensure!(what());
                count += 1;
            }
            Ok(begin.elapsed().as_secs_f64() / f64::from(count))
        };
        Ok(Self {
            verify: each(&|| public.verify(&message, signature.as_ref()).is_ok())?,
            sign: each(&|| {
                !std::hint::black_box(pair.sign(&message))
                    .as_ref()
                    .is_empty()
            })?,
        })
    }

    /// Grants a second when cryptography is all there is, on all cores.
    fn grants(&self, batch: f64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores as f64 / (2.0 * self.verify + self.sign / batch)
    }
}
