//! A large state: memory, snapshots, start-up, replay.
//!
//! ```text
//! process 1: grants ──apply──▶ state ──▶ snapshot on disk        memory, writing
//! process 2: the same files ──▶ service that serves              start-up, its memory; orders beside a snapshot
//! process 3: one grant a record ──▶ log without a snapshot
//! process 4: the same files ──▶ service that serves              replay
//! ```
//!
//! Each in a process of its own, whose resident memory is its own. Every grant is signed by its owner. The
//! limit next to a start is to read the same bytes and open them with AES-256-GCM, in the same process,
//! files in the page cache both times.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bield_envelope::{Principal, Secret, Signed, SigningKey};
use bield_grant::Grant;
use bield_keys::state::{Entry, Limits, State};
use bield_keys::testing::InProcess;
use bield_ledger::Ledger;
use bield_package::PackageHeader;
use bield_protocol::service::{Operation, Reply, Request};
use bield_sdk::{Randomness, now};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Effort;
use super::cast::{self, LEASE_SECS};
use super::disk::Disk;
use crate::bars::Bar;
use crate::deployment::own_status as status;

/// What a process of its own does.
#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Makes a state of so many grants and its snapshot.
    Fill { folder: PathBuf, grants: u64 },
    /// Makes a log of so many records, one grant each, without a snapshot.
    Log { folder: PathBuf, records: u64 },
    /// Starts a service on what is there.
    Start { folder: PathBuf },
}

/// Does it and prints what it took.
pub(crate) fn perform(task: &Task) -> Result<()> {
    let found = match task {
        Task::Fill { folder, grants } => fill(folder, *grants)?,
        Task::Log { folder, records } => log(folder, *records)?,
        Task::Start { folder } => start(folder)?,
    };
    println!("{found}");
    Ok(())
}

/// All of it.
pub(super) fn measured(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    snapshot(folder, effort.grants(), bars)?;
    replay(folder, effort.records(), bars)
}

fn snapshot(folder: &Path, grants: u64, bars: &mut Vec<Bar>) -> Result<()> {
    eprintln!("  a state of {grants} grants");
    let folder = TempDir::new_in(folder)?;
    let filled = in_a_process("fill", folder.path(), Some(grants))?;
    let started = in_a_process("start", folder.path(), None)?;
    let number = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::NAN);
    let count = grants as f64;
    let statement = number(&filled, "statement");
    ensure!(number(&started, "grants") == count, "grants are missing");
    let each = number(&filled, "resident") / count;
    let after = number(&started, "resident") / count;
    bars.push(Bar::at_most(
        format!("memory of a grant ÷ 600 B, of {}", millions(grants)),
        each / 600.0,
        1.0,
        format!("{each:.0} B resident each, indexes included, as they are granted"),
    ));
    bars.push(Bar::told(
        "memory of a grant ÷ its signed statement".to_owned(),
        each / statement,
        "ratio",
        format!("statement of {statement:.0} B"),
    ));
    bars.push(Bar::told(
        format!("memory of {} grants after a start", millions(grants)),
        number(&started, "resident") / 1e6,
        "MB",
        format!(
            "{after:.0} B a grant resident; peak of the start {:.0} MB: the snapshot is there while it is decoded",
            number(&started, "peak") / 1e6
        ),
    ));
    bars.push(Bar::told(
        format!("snapshot of {} grants: size", millions(grants)),
        number(&started, "bytes") / 1e6,
        "MB",
        format!("{:.0} B a grant", number(&started, "bytes") / count),
    ));
    bars.push(Bar::told(
        "snapshot: sealing and writing ÷ reading and opening as many bytes".to_owned(),
        number(&filled, "written") / number(&started, "opened"),
        "ratio",
        format!(
            "{:.2} s in all: encoding {:.2} s, for which orders wait; sealing and writing {:.2} s, not synced",
            number(&filled, "encoded") + number(&filled, "written"),
            number(&filled, "encoded"),
            number(&filled, "written")
        ),
    ));
    bars.push(Bar::told(
        format!(
            "snapshot of {} grants: longest wait for an order meanwhile",
            millions(grants)
        ),
        number(&started, "longest") * 1e3,
        "ms",
        format!(
            "{:.2} s until it is stored, synced; {} orders answered meanwhile, the median in {:.1} ms",
            number(&started, "snapshot"),
            number(&started, "orders"),
            number(&started, "median") * 1e3
        ),
    ));
    start_rows(
        &format!("start with {} grants", millions(grants)),
        &started,
        bars,
    );
    Ok(())
}

fn replay(folder: &Path, records: u64, bars: &mut Vec<Bar>) -> Result<()> {
    eprintln!("  a log of {records} records");
    let folder = TempDir::new_in(folder)?;
    in_a_process("log", folder.path(), Some(records))?;
    let started = in_a_process("start", folder.path(), None)?;
    ensure!(
        started["grants"].as_u64() == Some(records),
        "grants are missing"
    );
    let name = format!("replay of {} records without a snapshot", millions(records));
    start_rows(&name, &started, bars);
    Ok(())
}

fn start_rows(name: &str, started: &Value, bars: &mut Vec<Bar>) {
    let number = |name: &str| started[name].as_f64().unwrap_or(f64::NAN);
    bars.push(Bar::told(
        format!("{name} ÷ reading the same bytes through AES-256-GCM"),
        number("started") / number("opened"),
        "ratio",
        format!(
            "until it serves {:.2} s, {:.1} µs a grant; {:.0} MB read and opened in {:.3} s",
            number("started"),
            number("started") * 1e6 / number("grants"),
            number("bytes") / 1e6,
            number("opened")
        ),
    ));
}

fn in_a_process(task: &str, folder: &Path, count: Option<u64>) -> Result<Value> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["keys-state", task]).arg(folder);
    if let Some(count) = count {
        child.arg(count.to_string());
    }
    let done = child.output()?;
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).context("what a process of the bench printed")
}

/// Owners, packages and users, who share the grants among them.
struct Cast {
    owners: Vec<SigningKey>,
    users: Vec<Principal>,
    packages: Vec<PackageHeaderOf>,
}

struct PackageHeaderOf {
    owner: usize,
    header: bield_envelope::Verified<PackageHeader>,
}

const OWNERS: usize = 10;
/// So many that no package has more grants for one code than are allowed.
const PACKAGES: usize = 200;
const USERS: usize = 1000;

impl Cast {
    fn new() -> Result<Self> {
        let owners: Vec<_> = (0..OWNERS).map(|owner| cast::key(owner as u64)).collect();
        let package = |number: usize| {
            let owner = number % OWNERS;
            let header = cast::header(&owners[owner], &format!("package-{number}"))?;
            Ok(PackageHeaderOf { owner, header })
        };
        Ok(Self {
            packages: (0..PACKAGES).map(package).collect::<Result<_>>()?,
            users: (0..USERS)
                .map(|user| cast::key((1000 + user) as u64).principal())
                .collect(),
            owners,
        })
    }

    /// What comes before any grant.
    fn entries(&self) -> Vec<Entry> {
        let owners = self.owners.iter();
        let registered = owners.map(|owner| Entry::Registered(owner.principal()));
        let put = self.packages.iter().map(|package| Entry::PackagePut {
            header: package.header.as_signed().clone(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            key: Secret::from_bytes([9; 32]),
        });
        registered.chain(put).collect()
    }

    fn sign(&self, number: u64) -> Result<Signed<Grant>> {
        let package = &self.packages[number as usize % PACKAGES];
        let user = self.users[(number as usize / PACKAGES) % USERS];
        let digest = PackageHeader::package(&package.header);
        let grant = cast::grant(number, digest, user, &cast::code()?);
        Ok(Signed::sign(&self.owners[package.owner], grant).into_signed())
    }

    /// Signs on two threads, and gives the grants in order.
    fn each(&self, count: u64, mut take: impl FnMut(Signed<Grant>) -> Result<()>) -> Result<()> {
        for from in (0..count).step_by(PIECE) {
            let to = count.min(from + PIECE as u64);
            let middle = from.midpoint(to);
            let (one, two) = std::thread::scope(|scope| {
                let sign = |range: std::ops::Range<u64>| -> Result<Vec<_>> {
                    range.map(|number| self.sign(number)).collect()
                };
                let one = scope.spawn(move || sign(from..middle));
                let two = sign(middle..to);
                (one.join(), two)
            });
            let one = one.map_err(|_| anyhow!("signing panicked"))?;
            for signed in one?.into_iter().chain(two?) {
                take(signed)?;
            }
        }
        Ok(())
    }
}

/// Grants that are signed before they are applied: few, so that they do not count as the state's memory.
const PIECE: usize = 5_000;

fn fill(folder: &Path, grants: u64) -> Result<Value> {
    let (mut ledger, mut state) = begin(folder)?;
    let cast = Cast::new()?;
    // The configuration's record: leaves 0 and 1 are there.
    let place = ledger.size() - 1;
    for entry in cast.entries() {
        state.apply(&entry, place, now())?;
    }
    let (before, mut statement) = (status("VmRSS")?, 0);
    cast.each(grants, |signed| {
        statement = signed.as_bytes().len();
        Ok(state.apply(&Entry::Granted(signed), place, now())?)
    })?;
    let resident = status("VmRSS")?.saturating_sub(before);
    let begin = Instant::now();
    let blocks = state.to_blocks();
    let job = ledger.begin_snapshot(blocks, &mut Randomness)?;
    let encoded = begin.elapsed().as_secs_f64();
    let (mut job, mut files) = (job.context("there is one")?, Disk::unsynced(folder));
    let begin = Instant::now();
    let whole = loop {
        if let Some(whole) = job.step(&mut files)? {
            break whole;
        }
    };
    let written = begin.elapsed().as_secs_f64();
    ledger.end_snapshot(Some(whole))?;
    Ok(json!({
        "resident": resident, "statement": statement, "encoded": encoded, "written": written,
    }))
}

fn log(folder: &Path, records: u64) -> Result<Value> {
    let (mut ledger, _) = begin(folder)?;
    let cast = Cast::new()?;
    let mut commit = |entries: &[Entry]| -> Result<()> {
        let encoded: Vec<_> = entries.iter().map(Entry::encode).collect();
        let slices: Vec<&[u8]> = encoded.iter().map(|entry| entry.as_slice()).collect();
        let record = ledger.seal(&slices, now(), &mut Randomness)?;
        ledger.commit(&record)?;
        Ok(())
    };
    commit(&cast.entries())?;
    cast.each(records, |signed| commit(&[Entry::Granted(signed)]))?;
    Ok(json!({}))
}

fn begin(folder: &Path) -> Result<(Ledger, State)> {
    let options = cast::options();
    let root = Secret::generate(&mut Randomness);
    let limits = Limits {
        lease_secs: LEASE_SECS,
        administrators: Vec::new(),
        recovery: None,
        admits_code: false,
    };
    let state = State::new(Secret::from_bytes(*root.expose()), limits);
    let files = Box::new(Disk::unsynced(folder));
    let seal = Secret::from_bytes(options.seal);
    let ledger = Ledger::create(files, seal, root, now(), &mut Randomness)?;
    Ok((ledger, state))
}

fn start(folder: &Path) -> Result<Value> {
    let (bytes, opened) = open_bare(folder)?;
    let (disk, _) = Disk::synced(folder);
    let before = status("VmRSS")?;
    let begin = Instant::now();
    let service = cast::start(disk, &cast::options())?;
    let started = begin.elapsed().as_secs_f64();
    let resident = status("VmRSS")?.saturating_sub(before);
    let peak = status("VmHWM")?.saturating_sub(before);
    let Reply::Inspection(found) = service.answer(&mut cast::session(0, None), Request::Inspect)
    else {
        return Err(anyhow!("it does not tell how it is"));
    };
    let grants = found.grants;
    let (snapshot, waits) = beside_a_snapshot(&service)?;
    service.kill();
    Ok(json!({
        "bytes": bytes, "opened": opened, "started": started, "resident": resident, "peak": peak, "grants": grants,
        "snapshot": snapshot, "orders": waits.len(), "longest": waits.last(), "median": waits.get(waits.len() / 2),
    }))
}

/// Takes a snapshot while somebody orders, one order after the other: the seconds it took, and for each order that
/// was asked meanwhile those until its answer, ascending.
fn beside_a_snapshot(service: &InProcess) -> Result<(f64, Vec<f64>)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let orders = scope.spawn(|| {
            let mut waits = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let number = 1_000_000 + waits.len() as u64;
                let mut session = cast::session(number, None);
                let register = Operation::Register;
                let command = cast::command(&session, 0, &cast::key(number), register);
                let begin = Instant::now();
                let reply = service.answer(&mut session, Request::Command(command));
                waits.push(begin.elapsed().as_secs_f64());
                ensure!(matches!(reply, Reply::Done(_)), "an order is refused");
            }
            Ok(waits)
        });
        let begin = Instant::now();
        // Not while a record is on its way; the service itself begins between two.
        while !service.snapshot() && !orders.is_finished() {
            std::thread::yield_now();
        }
        let seconds = begin.elapsed().as_secs_f64();
        over.store(true, Ordering::SeqCst);
        let waits = orders.join().map_err(|_| anyhow!("ordering panicked"))?;
        let mut waits: Vec<f64> = waits?;
        waits.sort_by(f64::total_cmp);
        Ok((seconds, waits))
    })
}

/// Reads all files and opens as many bytes: how many, and the seconds that took.
fn open_bare(folder: &Path) -> Result<(u64, f64)> {
    let refused = |_| anyhow!("the cryptographic library refused");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(refused)?);
    let (mut total, mut seconds) = (0, 0.0);
    let mut buffer = vec![0; 4 << 20];
    for entry in fs::read_dir(folder)? {
        let mut file = fs::File::open(entry?.path())?;
        loop {
            let begin = Instant::now();
            let length = std::io::Read::read(&mut file, &mut buffer)?;
            // Sealing costs what opening does, and needs no tag that fits.
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let sealed = &mut buffer[..length];
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), sealed);
            let _ = std::hint::black_box(tag.map_err(refused)?);
            seconds += begin.elapsed().as_secs_f64();
            if length == 0 {
                break;
            }
            total += length as u64;
        }
    }
    Ok((total, seconds))
}

/// As people say it.
fn millions(count: u64) -> String {
    match count {
        1_000_000 => "10⁶".to_owned(),
        100_000 => "10⁵".to_owned(),
        10_000 => "10⁴".to_owned(),
        other => other.to_string(),
    }
}
