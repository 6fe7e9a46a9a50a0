//! `bield rotate package`.

use std::fs::File;
use std::path::{Path, PathBuf};

use bield_envelope::{Digest, Signed, SigningKey};
use bield_grant::{Grant, PackageSelector};
use bield_package::{
    Manifest, ManifestDraft, PackageHead, PackageKey, PackageSummary, PackageVersion,
};
use bield_sdk::{Gateway, Home, KeyService, Stored, now};
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use crate::commands::grant::{CLOCK_BEHIND, line, random_id, show};
use crate::commands::pack::{at, seal};
use crate::commands::{confirmed, key_service};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Seal a package again under a new key, and move its grants
///
/// Opens FILE with its key from this home, seals the same model under a new key and version, uploads it,
/// registers it, and gives every grant for exactly the old package again for the new one: same users,
/// code and end, and what is left of metered ones. Grants by name and range cover the new version anyway,
/// if the range does.
///
/// The old package stays until it is deleted: with --yes that is done at the end, else on the terminal it
/// is asked for, and `bield delete package` does it later. Who has a copy of the old sealed file and its
/// old key can open that copy for ever; nothing reaches it.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  \
    bield rotate package magika.bield --version 3.4 -o magika-3.4.bield --yes")]
pub(super) struct Package {
    /// The sealed package
    file: PathBuf,

    /// Version of the new package; the name stays
    #[arg(long)]
    version: PackageVersion,

    /// Where to write the new package
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file if it is there
    #[arg(long)]
    force: bool,

    /// Delete the old package at the key service at the end
    #[arg(long)]
    yes: bool,
}

impl Package {
    pub(super) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        if self.output.exists() && !self.force {
            return Err(Failure::local(format_args!(
                "{} exists; choose another -o, or replace it with --force",
                self.output.display()
            )));
        }
        let old = Opened::read(home, &self.file)?;
        if old.manifest.version == self.version {
            return Err(Failure::local(format_args!(
                "it is version {} already: give the new one another --version",
                self.version.as_str()
            )));
        }
        // The service first: sealing a large model is in vain when nobody is there.
        let mut service = key_service(home, &trust)?;
        service.register(&owner)?;
        let grants = service.grants(&owner, Some(old.digest), None)?;
        drop(service);

        let (name, old_digest) = (old.manifest.name.as_str().to_owned(), old.digest);
        let (inputs, outputs) = (old.manifest.inputs.clone(), old.manifest.outputs.clone());
        let (summary, key) = self.seal(home, &owner, old)?;
        let uploaded = self.upload(&Gateway::new(trust.gateway()), &summary)?;

        let mut service = key_service(home, &trust)?;
        let mut file = File::open(&self.output).map_err(|error| at(&self.output, error))?;
        let header = PackageHead::read(&mut file)?.signed_header().clone();
        service.put_package(&owner, header, inputs, outputs, &key)?;
        let moved = regrant(&mut service, &owner, &grants, old_digest, summary.digest)?;
        let label = format!("{name}@{}", self.version.as_str());
        if !output.is_json() && !moved.is_empty() {
            let lines: Vec<_> = moved.iter().map(|grant| line(grant)).collect();
            output.note(format_args!("granted {label}\n{}", lines.join("\n")));
        }
        let question = format!("delete the old package {old_digest} at the key service?");
        let deleted = confirmed(self.yes, &question).is_ok();
        if deleted {
            service.delete_package(&owner, old_digest)?;
        }
        service.close()?;
        let key = home.package_key_path(summary.digest).display().to_string();
        let still = if deleted {
            "deleted"
        } else {
            "still there: bield delete package"
        };
        output.show(
            &json!({
                "package": summary.digest.to_string(),
                "before": old_digest.to_string(),
                "deleted": deleted,
                "uploaded": uploaded,
                "file": self.output.display().to_string(),
                "key": key,
                "grants": moved.iter().map(show).collect::<Vec<_>>(),
            }),
            format_args!(
                "{}  {label}\n  before  {old_digest} ({still})\n  grants  {} moved\n  sealed  {}\n  key     \
                 {key} (back it up: without it the package is lost)",
                summary.digest,
                moved.len(),
                self.output.display(),
            ),
        );
        Ok(())
    }

    fn seal(
        &self,
        home: &Home,
        owner: &SigningKey,
        old: Opened,
    ) -> Result<(PackageSummary, PackageKey), Failure> {
        let draft = ManifestDraft {
            name: old.manifest.name,
            version: self.version.clone(),
            format: old.manifest.format,
            inputs: old.manifest.inputs,
            outputs: old.manifest.outputs,
            golden: old.manifest.golden,
            chunk_bytes: old.chunk_bytes,
            function: old.manifest.function,
        };
        seal(home, owner, &old.model, draft, &self.output)
    }

    fn upload(&self, gateway: &Gateway, summary: &PackageSummary) -> Result<bool, Failure> {
        let mut file = File::open(&self.output).map_err(|error| at(&self.output, error))?;
        let bar = progress::bytes("uploading");
        let bytes = summary.package_bytes;
        let mut advance = progress::advance(&bar);
        let stored = gateway.put_package(summary.digest, &mut file, bytes, &mut advance);
        bar.finish_and_clear();
        Ok(stored? == Stored::Uploaded)
    }
}

/// The old package, opened and checked.
struct Opened {
    digest: Digest,
    chunk_bytes: u32,
    manifest: Manifest,
    model: Zeroizing<Vec<u8>>,
}

impl Opened {
    fn read(home: &Home, path: &Path) -> Result<Self, Failure> {
        let mut file = File::open(path).map_err(|error| at(path, error))?;
        let head = PackageHead::read(&mut file)?;
        let (digest, chunk_bytes) = (head.digest(), head.header().chunk_bytes);
        let open = head.open_manifest(&home.package_key(digest)?)?;
        let bytes = usize::try_from(open.model_bytes()).map_err(|error| at(path, error))?;
        let mut model = Zeroizing::new(vec![0; bytes]);
        let bar = progress::bytes("opening");
        open.open_model(&mut file, &mut model, &mut progress::advance(&bar))?;
        bar.finish_and_clear();
        open.check_content(&model)?;
        Ok(Self {
            digest,
            chunk_bytes,
            manifest: open.into_manifest(),
            model,
        })
    }
}

/// Gives the grants for exactly `old` that still hold once more, for `new`.
fn regrant(
    service: &mut KeyService<'_>,
    owner: &SigningKey,
    grants: &[bield_sdk::ListedGrant],
    old: Digest,
    new: Digest,
) -> Result<Vec<bield_envelope::Verified<Grant>>, Failure> {
    let now = now();
    let moving = grants.iter().filter(|listed| {
        listed.grant.package == PackageSelector::Digest(old)
            && listed.grant.not_after > now
            && listed.left != Some(0)
    });
    let mut moved = Vec::new();
    for listed in moving {
        let grant = Grant {
            id: random_id(),
            package: PackageSelector::Digest(new),
            not_before: listed.grant.not_before.max(now.minus(CLOCK_BEHIND)),
            requests: listed.left,
            ..Grant::clone(&listed.grant)
        };
        let grant = Signed::sign(owner, grant);
        service.grant(owner, &grant)?;
        moved.push(grant);
    }
    Ok(moved)
}
