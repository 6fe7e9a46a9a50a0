//! `bield grant`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use bield_envelope::{Digest, Signed, SigningKey, Time, Verified};
use bield_evidence::Measurement;
use bield_grant::{
    CodeSelector, Grant as Statement, GroupName, Isolation, PackageSelector, UserSelector,
};
use bield_package::PackageHead;
use bield_sdk::{Home, KeyService, Randomness, now};
use clap::{ArgGroup, Args};
use rand_core::Rng as _;
use serde_json::{Value, json};

use super::selectors::{self, Signer};
use super::{counted, hex, key_service};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Allow users to call a package inside measured code
///
/// Verifies the key service's evidence, then registers you, the package with its key, and one signed
/// grant for each user and each code. The key leaves this machine only inside that attested session, and
/// the key service gives it only to runtimes whose evidence shows the granted code.
///
/// PACKAGE is the file, or the digest of a package that was packed in this home. With --package instead,
/// nothing is registered: the grant is for a package that the key service has already, or, by name and
/// range of versions, for every package of yours that the range covers, also later ones. A version alone
/// means exactly that one; `NAME@^1.2` means 1.2 and what is compatible with it.
///
/// Users are principals, or groups of yours (bield group): who is in a group counts when a request comes.
/// Code is one measurement, or everything that a signer released from a security version on; a user's own
/// list of trusted code counts as well. With --requests a grant ends after so many requests, by all of
/// its users together.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true).args(["package", "selector"]))]
#[command(group = ArgGroup::new("who").required(true).multiple(true).args(["user", "group"]))]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["code", "signer"]))]
pub(crate) struct Grant {
    /// The package to register and grant: its file, or its digest
    package: Option<String>,

    /// Grant packages that are registered, or will be: a digest, NAME, NAME@VERSION or NAME@RANGE
    #[arg(long = "package", value_name = "DIGEST|NAME@RANGE", value_parser = selectors::package)]
    selector: Option<PackageSelector>,

    /// Who may call it: a principal, or `me`; repeat for more
    #[arg(long, value_name = "PRINCIPAL")]
    user: Vec<String>,

    /// Which group of yours may call it; repeat for more
    #[arg(long, value_name = "NAME")]
    group: Vec<GroupName>,

    /// The only code that may hold it in the clear; repeat for more
    #[arg(long, value_name = "MEASUREMENT")]
    code: Vec<Measurement>,

    /// Or any code of this signer: sgx:MRSIGNER, or snp:ID-KEY-DIGEST
    #[arg(long, value_name = "KIND:HEX", value_parser = selectors::signer, requires = "min_svn")]
    signer: Option<Signer>,

    /// The signer's number of the product (SGX) [default: every product of the signer]
    #[arg(long, value_name = "N", requires = "signer")]
    product: Option<u16>,

    /// The lowest security version of the signer's code
    #[arg(long, value_name = "N", requires = "signer")]
    min_svn: Option<u32>,

    /// How long the grant holds: a number and s, m, h, d or w
    #[arg(
        long = "for",
        visible_alias = "expires",
        value_name = "TIME",
        default_value = "30d",
        value_parser = selectors::duration,
        conflicts_with = "until"
    )]
    lasts: Duration,

    /// When the grant ends, in UTC: 2027-01-31, or 2027-01-31T18:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = selectors::time)]
    until: Option<Time>,

    /// How many requests each grant allows in its whole life [default: no bound]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// How users are kept apart inside the code: shared, wiped or dedicated
    #[arg(long, default_value = "shared")]
    isolation: Isolation,
}

impl Grant {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        // Everything that can be wrong here is said before anybody is asked.
        let offer = match &self.package {
            Some(text) => Some(Offer::read(home, text)?),
            None => None,
        };
        let users = selectors::users(home, &self.user, &self.group)?;
        let signer = self.signer.as_ref();
        let codes = selectors::codes(&self.code, signer, self.product, self.min_svn)?;
        let not_after = self.until.unwrap_or_else(|| now().plus(self.lasts));
        if not_after <= now() {
            return Err(Failure::local(format_args!("--until {not_after} is past")));
        }

        let mut service = key_service(home, &trust)?;
        service.register(&owner)?;
        let (selector, label) = match offer {
            Some(offer) => {
                let (digest, label) = (offer.head.digest(), offer.label());
                offer.register(&mut service, &owner)?;
                (PackageSelector::Digest(digest), label)
            }
            None => {
                let selector = self.selector.clone();
                let selector = selector.ok_or_else(|| Failure::local("which package?"))?;
                let label = selector.to_string();
                (selector, label)
            }
        };
        let bar = progress::count("granting", users.len() * codes.len());
        let mut granted = Vec::new();
        for user in &users {
            for code in &codes {
                let grant = self.sign(&owner, &selector, user, code, not_after);
                service.grant(&owner, &grant)?;
                bar.inc(1);
                granted.push(grant);
            }
        }
        bar.finish_and_clear();
        let (principal, simulated) = (service.principal(), service.appraised().simulated());
        service.close()?;
        let lines: Vec<_> = granted.iter().map(|grant| line(grant)).collect();
        output.show(
            &json!({
                "package": selector.to_string(),
                "owner": owner.principal().to_string(),
                "service": principal.to_string(),
                "simulated": simulated,
                "grants": granted.iter().map(show).collect::<Vec<_>>(),
            }),
            format_args!("granted {label}\n{}", lines.join("\n")),
        );
        if simulated && !output.is_json() {
            output.note("the key service runs in a SOFTWARE TEE: no hardware protects the key");
        }
        Ok(())
    }

    fn sign(
        &self,
        owner: &SigningKey,
        package: &PackageSelector,
        user: &UserSelector,
        code: &CodeSelector,
        not_after: Time,
    ) -> Verified<Statement> {
        let grant = Statement {
            id: random_id(),
            package: package.clone(),
            user: user.clone(),
            code: code.clone(),
            isolation: self.isolation,
            // A runtime's clock may be a little behind this one.
            not_before: now().minus(CLOCK_BEHIND),
            not_after,
            requests: self.requests,
        };
        Signed::sign(owner, grant)
    }
}

/// A package whose key is at hand.
struct Offer {
    head: PackageHead,
    key: bield_package::PackageKey,
}

impl Offer {
    fn read(home: &Home, text: &str) -> Result<Self, Failure> {
        let path = match text.parse::<Digest>() {
            Ok(digest) => home.package_head_path(digest),
            Err(_) => PathBuf::from(text),
        };
        let mut file = File::open(&path).map_err(|error| {
            Failure::local(format_args!(
                "{}: {error}; give a package's file, or the digest of one packed in this home; what the key \
                 service has already is granted with --package",
                path.display()
            ))
        })?;
        let head = PackageHead::read(&mut file)?;
        let key = home.package_key(head.digest())?;
        Ok(Self { head, key })
    }

    fn label(&self) -> String {
        let header = self.head.header();
        let (name, version) = (header.name.as_str(), header.version.as_str());
        format!("{name}@{version} ({})", self.head.digest())
    }

    /// Registers it, unless it was registered by whom the owner has succeeded.
    fn register(self, service: &mut KeyService<'_>, owner: &SigningKey) -> Result<(), Failure> {
        let signer = self.head.header().owner;
        if signer != owner.principal() {
            if service.me(owner)?.succeeds.contains(&signer) {
                return Ok(());
            }
            return Err(Failure::refused(format_args!(
                "the package belongs to {signer}, who signed it; only they can grant it"
            )));
        }
        let header = self.head.signed_header().clone();
        let manifest = self.head.open_manifest(&self.key)?.into_manifest();
        service.put_package(owner, header, manifest.inputs, manifest.outputs, &self.key)?;
        Ok(())
    }
}

pub(super) fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    Randomness.fill_bytes(&mut id);
    id
}

/// A grant in a line for people.
pub(super) fn line(grant: &Statement) -> String {
    let code = match &grant.code {
        CodeSelector::Measurement(measurement) => measurement.short(),
        signed @ CodeSelector::Signed(_) => signed.to_string(),
    };
    let requests = grant.requests.map_or_else(String::new, |requests| {
        format!(", {}", counted(requests, "request"))
    });
    format!(
        "  {}  to {} in {code} until {}{requests}",
        hex(&grant.id),
        grant.user,
        grant.not_after
    )
}

/// A grant for programs.
pub(super) fn show(grant: &Verified<Statement>) -> Value {
    json!({
        "id": hex(&grant.id),
        "digest": grant.digest().to_string(),
        "package": grant.package.to_string(),
        "user": grant.user.to_string(),
        "code": grant.code.to_string(),
        "isolation": grant.isolation.to_string(),
        "not_before": grant.not_before.to_string(),
        "not_after": grant.not_after.to_string(),
        "requests": grant.requests,
    })
}

/// How far a runtime's clock may be behind the owner's before a new grant does not hold there yet.
pub(super) const CLOCK_BEHIND: Duration = Duration::from_secs(60);

const EXAMPLES: &str = r#"Examples:
  bield grant magika.bield --user ed25519:... --code sgx:...
  bield grant magika.bield --user me --user ed25519:... --code sgx:... --for 12h
  bield grant --package magika@^3.3 --group lab --code sgx:... --until 2027-01-31
  bield grant --package magika --user ed25519:... --signer sgx:... --product 1 --min-svn 4 --requests 1000"#;
