//! `bield pack` of a function.

use std::path::Path;

use bield_envelope::{Digest, Principal};
use bield_package::{
    Consistency, Durability, NamedModel, NotAComponent, PackageHead, component_digest,
};
use bield_sdk::{
    FUNCTION_FILE, FunctionFile, FunctionState, Home, NamedPackage, Randomness, Reference, now,
};
use serde_json::json;

use super::{Pack, at, seal};
use crate::commands::{hex, key_service};
use crate::failure::Failure;
use crate::output::Output;

/// Whether it is where a function is described.
pub(super) fn is_one(path: &Path) -> bool {
    path.is_dir()
        || path
            .extension()
            .is_some_and(|extension| extension == "toml")
}

/// Refuses what looks like code: a function is packed by what it may use.
pub(super) fn refuse_code(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    if !begins(b"\0asm") && !begins(b"\x7fELF") {
        return Ok(());
    }
    Err(match component_digest(bytes) {
        Ok(_) => at(
            path,
            format_args!(
                "a WebAssembly component, hence a function: it is packed by its {FUNCTION_FILE}, which says what it may \
                 use; give that file, or the directory it is in"
            ),
        ),
        Err(error) => at(path, error),
    })
}

impl Pack {
    pub(super) fn pack_function(self, home: &Home, output: Output) -> Result<(), Failure> {
        let beside = [
            ("--name", self.name.is_some()),
            ("--version", self.version.is_some()),
            ("--onnx", self.onnx.is_some()),
            ("--golden", !self.golden.is_empty()),
        ];
        if let Some((flag, _)) = beside.iter().find(|(_, given)| *given) {
            return Err(Failure::local(format_args!(
                "{flag} is for models; a function's {FUNCTION_FILE} says everything about it"
            )));
        }
        let (file, directory) = FunctionFile::read(&self.model)?;
        let identity = home.identity()?;
        if self.build {
            file.build(&directory)?;
        }
        let component = file.component(&directory)?;
        // Before anything is made: what is no component is not packed.
        let sha256 = component_digest(&component)
            .map_err(|error: NotAComponent| at(&directory.join(&file.source), error))?;
        let models = file
            .models
            .iter()
            .map(|model| named(home, &identity.principal(), &directory, model))
            .collect::<Result<Vec<_>, _>>()?;
        let state = match file.buckets.is_empty() {
            true => None,
            false => Some(FunctionState::open_or_create(
                home,
                &identity,
                &file.name,
                self.certifier(home)?,
                now(),
                &mut Randomness,
            )?),
        };
        let draft = file
            .draft(&component, models, state.as_ref())
            .map_err(|error| at(&directory.join(&file.source), error))?;
        let (summary, _) = seal(home, &identity, &component, draft, &self.output)?;

        let key_path = home.package_key_path(summary.digest).display().to_string();
        let capsule = state.as_ref().map(|state| state.capsule().to_string());
        let buckets = file.buckets.iter().map(|bucket| {
            let (consistency, durability) = promises(bucket.consistency, bucket.durability);
            json!({"name": bucket.name, "consistency": consistency, "durability": durability})
        });
        let shown: Vec<String> = file
            .buckets
            .iter()
            .map(|bucket| {
                let (consistency, durability) = promises(bucket.consistency, bucket.durability);
                format!("{} ({consistency}, {durability})", bucket.name)
            })
            .collect();
        let none = |list: Vec<String>| match list.is_empty() {
            true => "none".to_owned(),
            false => list.join(", "),
        };
        let models: Vec<&str> = file.models.iter().map(|model| &*model.name).collect();
        output.show(
            &json!({
                "package": summary.digest.to_string(),
                "name": file.name.as_str(),
                "version": file.version.as_str(),
                "owner": identity.principal().to_string(),
                "file": self.output.display().to_string(),
                "key": key_path,
                "format": "WebAssembly component",
                "component": hex(&sha256),
                "component_bytes": summary.model_bytes,
                "package_bytes": summary.package_bytes,
                "chunks": summary.chunk_count,
                "buckets": buckets.collect::<Vec<_>>(),
                "models": models,
                "state": capsule,
            }),
            format_args!(
                "{}\n  sealed   {} ({} bytes, {} chunks)\n  function {}@{}, component {}\n  buckets  {}\n  models   {}\n  \
                 state    {}\n  key      {key_path} (back it up: without it the package is lost)",
                summary.digest,
                self.output.display(),
                summary.package_bytes,
                summary.chunk_count,
                file.name,
                file.version,
                hex(&sha256),
                none(shown),
                none(models.iter().map(ToString::to_string).collect()),
                capsule.as_deref().map_or_else(
                    || "none".to_owned(),
                    |capsule| format!("capsule {capsule}; its keys are in functions/{} of the home (back them up)", file.name)
                ),
            ),
        );
        Ok(())
    }

    /// The key service whose certificates admit writers of the state.
    fn certifier(&self, home: &Home) -> Result<Principal, Failure> {
        if let Some(service) = self.service {
            return Ok(service);
        }
        let trust = home.trust()?;
        if let Some(principal) = trust.principal() {
            return Ok(principal);
        }
        let known = home.known_services()?;
        let accepted = known.iter().rev().find(|known| trust.accepts(known));
        match accepted {
            Some(known) => Ok(known.principal),
            None => {
                let service = key_service(home, &trust)?;
                home.remember_service(&service.known())?;
                Ok(service.principal())
            }
        }
    }
}

/// The package that a function's file means: a file beside it, a digest, or a package that was packed in this home.
fn named(
    home: &Home,
    owner: &Principal,
    directory: &Path,
    model: &NamedPackage,
) -> Result<NamedModel, Failure> {
    let found = |package: Digest| NamedModel {
        name: model.name.clone(),
        package,
    };
    let path = directory.join(&model.package);
    if path.is_file() {
        let mut file = std::fs::File::open(&path).map_err(|error| at(&path, error))?;
        return Ok(found(PackageHead::read(&mut file)?.digest()));
    }
    let reference: Reference = model.package.parse().map_err(|error| {
        Failure::local(format_args!(
            "model {}: {:?} is no file beside {FUNCTION_FILE}, and: {error}",
            model.name, model.package
        ))
    })?;
    let Reference::Named(name, version) = reference else {
        return Ok(found(model.package.parse().map_err(Failure::local)?));
    };
    let packed = home.packages_named(owner, &name, version.as_ref())?;
    match packed[..] {
        [package] => Ok(found(package)),
        [] => Err(Failure::local(format_args!(
            "model {}: no package {} was packed in this home; pack it first, or name its digest or file",
            model.name, model.package
        ))),
        _ => Err(Failure::local(format_args!(
            "model {}: {} packages of this home are called {}: name the version, or the digest",
            model.name,
            packed.len(),
            model.package
        ))),
    }
}

const fn promises(
    consistency: Consistency,
    durability: Durability,
) -> (&'static str, &'static str) {
    let consistency = match consistency {
        Consistency::Eventual => "eventual",
        Consistency::Epoch => "epoch",
        Consistency::Linearizable => "linearizable",
    };
    let durability = match durability {
        Durability::Memory => "memory",
        Durability::Local => "local",
        Durability::LocalSync => "local-sync",
    };
    (consistency, durability)
}
