//! How long code goes on with keys after their revocation was acknowledged.
//!
//! ```text
//! leases … ─lease─lease─lease─┬─refused─refused …
//!                       └─────┼──────── its end ──▶ the latest that anybody cut off from the service serves
//! revoke ──────────────acknowledged
//! ```
//!
//! Two bounds that no clock decides: a lease that is asked for after the acknowledgement is refused, and the
//! latest end of those given before is at most the length of a lease away. In process; what sessions and a
//! runtime's renewal add, `testing/end-to-end/tests/revocation.rs` shows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use bield_envelope::{Signed, Time};
use bield_protocol::service::Operation;
use bield_sdk::now;
use tempfile::TempDir;

use super::cast::{self, seconds};
use super::disk::Disk;
use crate::bars::Bar;

const LEASE_SECS: u32 = 10;
const RUNTIMES: usize = 8;
const ROUNDS: u64 = 20;

/// Revokes under a load of leases.
pub(super) fn measured(folder: &Path, bars: &mut Vec<Bar>) -> Result<()> {
    eprintln!("  revocation");
    let folder = TempDir::new_in(folder)?;
    let mut options = cast::options();
    options.lease_secs = LEASE_SECS;
    let (disk, _) = Disk::synced(folder.path());
    let service = cast::start(disk, &options)?;
    let (owner, code) = (cast::key(1), cast::code()?);
    let package = cast::settle(&service, &owner, "revoked")?;
    let runtime = cast::appraised()?;
    let (mut longest, mut slowest, mut given) = (0.0_f64, 0.0_f64, 0);
    for round in 0..ROUNDS {
        let grant = cast::grant(round, package, cast::key(2).principal(), &code);
        let signed = Signed::sign(&owner, grant.clone()).into_signed();
        cast::order(&service, &owner, Operation::Grant(signed))?;
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let (ends, acknowledged, refused) = std::thread::scope(|scope| {
            let (stop, count, service) = (&stop, &count, &service);
            let runtimes: Vec<_> = (0..RUNTIMES)
                .map(|number| {
                    let mut session = cast::session(number as u64, Some(Arc::clone(&runtime)));
                    scope.spawn(move || -> Result<(Option<Time>, Instant)> {
                        let mut end = None;
                        loop {
                            let told = stop.load(SeqCst);
                            match cast::lease(service, &mut session, package)? {
                                Ok(_) if told => bail!("a lease after the acknowledgement"),
                                Ok(leased) => {
                                    end = end.max(Some(leased.lease.not_after));
                                    count.fetch_add(1, SeqCst);
                                }
                                Err(code) if code == "grant-revoked" => {
                                    return Ok((end, Instant::now()));
                                }
                                Err(code) => bail!("refused: {code}"),
                            }
                        }
                    })
                })
                .collect();
            let waits = Instant::now();
            while count.load(SeqCst) < 4 * RUNTIMES as u64 {
                ensure!(waits.elapsed() < Duration::from_secs(20), "no leases");
                std::thread::yield_now();
            }
            let revoked = cast::revoke(service, &owner, &grant);
            let acknowledged = (now(), Instant::now());
            stop.store(true, SeqCst);
            revoked?;
            let (mut ends, mut refused) = (None, acknowledged.1);
            for runtime in runtimes {
                let joined = runtime.join().map_err(|_| anyhow!("a runtime panicked"))?;
                let (end, at) = joined?;
                ends = ends.max(end);
                refused = refused.max(at);
            }
            Ok((ends, acknowledged, refused))
        })?;
        let Some(end) = ends else {
            bail!("no lease was given");
        };
        longest = longest.max(seconds(acknowledged.0, end));
        slowest = slowest.max((refused - acknowledged.1).as_secs_f64());
        given += count.load(SeqCst);
    }
    let length = f64::from(LEASE_SECS);
    bars.push(Bar::at_most(
        "revoked → latest end of a lease ÷ length of a lease".to_owned(),
        longest / length,
        1.0,
        format!(
            "worst of {ROUNDS} revocations under a load of {RUNTIMES} runtimes, {given} leases; a runtime that \
             nobody reaches any more stops then"
        ),
    ));
    bars.push(Bar::told(
        "revoked → last runtime refused ÷ length of a lease".to_owned(),
        slowest / length,
        "ratio",
        format!(
            "worst {:.1} ms: whoever asks after the acknowledgement is refused (none was not)",
            slowest * 1e3
        ),
    ));
    Ok(())
}
