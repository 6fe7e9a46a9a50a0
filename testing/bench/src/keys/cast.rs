//! Who asks the service: an owner, a package, grants, a runtime whose evidence was appraised.
//!
//! Commands are signed beforehand: a client's signatures are not what is measured. What the service does
//! with them is all in the path: both signatures of an order are checked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bield_end_to_end::Process;
use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{
    Appraised, Evidence, Measurement, Policy, Reference, Roots, TeeKind, appraise, canonical_dcap,
    claims_report_data, verify,
};
use bield_grant::{CodeSelector, Grant, Isolation, PackageSelector, UserSelector};
use bield_keys::service::Conversation;
use bield_keys::testing::{InProcess, Options};
use bield_package::{PackageHeader, Suite};
use bield_protocol::service::{
    Command, GrantId, LeaseRequest, LeasedKeys, Operation, PackageOffer, Reply, Request,
    key_commitment,
};
use bield_sdk::now;
use bield_software_tee::{CollateralOptions, Kind, Platform, SgxReport};

use super::disk::Disk;

/// The code that everything is granted to.
const CODE: [u8; 32] = [5; 32];
const PACKAGE_KEY: [u8; 32] = [9; 32];
/// How long a lease lasts: what a configuration says when nobody says otherwise.
pub(super) const LEASE_SECS: u32 = 600;

/// A person's key, by number.
pub(super) fn key(number: u64) -> SigningKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(Secret::from_bytes(seed))
}

/// The configuration in all parts but that of revocation.
pub(super) fn options() -> Options {
    let mut options = Options::new(now);
    options.lease_secs = LEASE_SECS;
    options
}

/// Starts a service on an empty folder, or on what is in it.
pub(super) fn start(disk: Disk, options: &Options) -> Result<InProcess> {
    InProcess::start(disk, options).map_err(|sentence| anyhow!(sentence))
}

/// The code of [`appraised`].
pub(super) fn code() -> Result<Measurement> {
    Ok(Measurement::new(TeeKind::Sgx, &CODE)?)
}

/// Code that nobody runs: so many, because there are limits to the grants that one lease of some code may have to
/// look at (8000), and to the kinds of code that grants of a package name (64).
pub(super) fn other_codes() -> Result<Vec<Measurement>> {
    let code = |number| Ok(Measurement::new(TeeKind::Sgx, &[number; 32])?);
    (100..140).map(code).collect()
}

/// A runtime's evidence of a software platform, verified and appraised once, as at the beginning of a session.
pub(super) fn appraised() -> Result<Arc<Appraised>> {
    let at = now();
    let platform = Platform::generate(bield_software_tee::Options::seeded([4; 32], at))?;
    let claims_buffer = b"claims".to_vec();
    let report = SgxReport {
        measurement: CODE,
        signer: [3; 32],
        svn: 5,
        report_data: claims_report_data(&claims_buffer),
        ..SgxReport::default()
    };
    let collateral = platform.collateral(Kind::Sgx, &CollateralOptions::at(at))?;
    let evidence = Evidence {
        claims_buffer,
        ..canonical_dcap(&platform.sgx_quote(&report), &collateral)?
    };
    let roots = Roots::none().with_simulated_dcap(platform.root_der().to_vec());
    let claims = verify(&evidence, &roots, at)?;
    let appraisal = appraise(&claims, &Policy::dev(Reference::Deferred), at);
    let admitted = appraisal.admit(claims);
    Ok(Arc::new(
        admitted.map_err(|refused| anyhow!("{refused:?}"))?,
    ))
}

/// A session as the service sees it; its number names it.
pub(super) fn session(number: u64, runtime: Option<Arc<Appraised>>) -> Conversation {
    let mut binding = [1; 32];
    binding[..8].copy_from_slice(&number.to_be_bytes());
    Conversation {
        runtime,
        binding,
        sequence: 0,
    }
}

/// The owner's word for a package.
pub(super) fn header(owner: &SigningKey, name: &str) -> Result<Verified<PackageHeader>> {
    let header = PackageHeader {
        id: Digest::of("bench package", &[name.as_bytes()]),
        suite: Suite::Aes256Gcm,
        name: name.parse()?,
        version: "1.0.0".parse()?,
        owner: owner.principal(),
        manifest_bytes: 100,
        manifest: Digest::of("bench manifest", &[]),
        chunk_bytes: 1 << 20,
        chunk_count: 1,
        model_bytes: 1000,
    };
    Ok(Signed::sign(owner, header))
}

/// Grant `number` of `package` to `user`, for an hour.
pub(super) fn grant(number: u64, package: Digest, user: Principal, code: &Measurement) -> Grant {
    let mut id = [0; 16];
    // Spread, as random ones are.
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let at = now();
    Grant {
        id,
        package: PackageSelector::Digest(package),
        user: UserSelector::Principal(user),
        code: CodeSelector::Measurement(code.clone()),
        isolation: Isolation::Shared,
        not_before: at.minus(Duration::from_secs(60)),
        not_after: at.plus(Duration::from_secs(3600)),
        requests: None,
    }
}

/// A command in its place.
pub(super) fn command(
    session: &Conversation,
    sequence: u64,
    by: &SigningKey,
    operation: Operation,
) -> Signed<Command> {
    let command = Command {
        session: session.binding,
        sequence,
        operation,
    };
    Signed::sign(by, command).into_signed()
}

/// Has `owner` register and put a package, in a session of its own.
pub(super) fn settle(service: &InProcess, owner: &SigningKey, name: &str) -> Result<Digest> {
    let mut session = session(u64::MAX - u64::from(name.len() as u32), None);
    let register = command(&session, 0, owner, Operation::Register);
    done(service.answer(&mut session, Request::Command(register)))?;
    let header = header(owner, name)?;
    let secret = Secret::from_bytes(PACKAGE_KEY);
    let offer = Operation::PutPackage(PackageOffer {
        header: header.as_signed().clone(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        key: key_commitment(&secret),
    });
    let put = command(&session, 1, owner, offer);
    done(service.answer(&mut session, Request::PutPackage(put, secret)))?;
    Ok(PackageHeader::package(&header))
}

/// Orders one thing in a session of its own.
pub(super) fn order(service: &InProcess, by: &SigningKey, operation: Operation) -> Result<()> {
    let mut session = session(u64::MAX, None);
    let signed = command(&session, 0, by, operation);
    done(service.answer(&mut session, Request::Command(signed)))
}

/// Revokes grant `number`.
pub(super) fn revoke(service: &InProcess, by: &SigningKey, grant: &Grant) -> Result<()> {
    order(service, by, Operation::Revoke(vec![GrantId(grant.id)]))
}

/// Asks for keys; the code of the refusal when there are none.
pub(super) fn lease(
    service: &InProcess,
    session: &mut Conversation,
    package: Digest,
) -> Result<Result<LeasedKeys, String>> {
    let request = LeaseRequest {
        package,
        returned: None,
    };
    match service.answer(session, Request::Lease(request)) {
        Reply::Lease(leased) => Ok(Ok(leased)),
        Reply::Refused(refusal) => Ok(Err(refusal.code)),
        _ => bail!("something else than a lease"),
    }
}

/// What must have been done.
pub(super) fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done(_) | Reply::Lease(_) => Ok(()),
        Reply::Refused(refusal) => bail!("{}: {}", refusal.code, refusal.message),
        _ => bail!("an answer to something else"),
    }
}

/// A `bield-witness` process, which ends with this.
pub(super) struct Witness {
    _process: Process,
    /// Where it listens.
    pub(super) address: String,
    /// Its verifier key.
    pub(super) verifier: String,
    _data: tempfile::TempDir,
}

impl Witness {
    /// Starts one with its data below `folder`, on the same disk as what it witnesses.
    pub(super) fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let data = tempfile::TempDir::new_in(folder)?;
        let mut command = std::process::Command::new(programs.join("bield-witness"));
        command.args(["--listen", "127.0.0.1:0", "--any-keys"]);
        command.args(["--name", "witness.example"]);
        command.env("RUST_LOG", "error");
        command.arg("--data").arg(data.path().join("kept"));
        let mut process = Process::start(&mut command, &data.path().join("log"))?;
        let said = process.says("listening http://", Duration::from_secs(30))?;
        let Some((address, verifier)) = said.split_once(' ') else {
            bail!("no address and key: {said}");
        };
        Ok(Self {
            address: address.to_owned(),
            verifier: verifier.to_owned(),
            _process: process,
            _data: data,
        })
    }
}

/// A clock's reading, for lengths of time in it.
pub(super) fn seconds(from: Time, to: Time) -> f64 {
    (to.as_millis() as f64 - from.as_millis() as f64) / 1e3
}
