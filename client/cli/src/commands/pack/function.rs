//! `bield pack` of a function.

use std::path::Path;

use bield_envelope::Principal;
use bield_package::{Consistency, Durability, component_digest};
use bield_sdk::{FUNCTION_FILE, Home};
use serde_json::json;

use super::{Pack, at, seal};
use crate::commands::folder::{Folder, described};
use crate::commands::{build, hex, key_service};
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
    let ending = path.extension().unwrap_or_default();
    let is_named_so = ending == "wasm" || ending == "cwasm";
    if !is_named_so && !begins(b"\0asm") && !begins(b"\x7fELF") {
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
        // Before an identity is asked for: most mistakes are in the folder.
        let (file, directory) = described(&self.model)?;
        let identity = home.identity()?;
        if self.build {
            build::here(&file, &directory, output)?;
        }
        let folder = Folder::read(home, &identity.principal(), &self.model)?;
        let state = folder.state(home, &identity, || self.certifier(home))?;
        let draft = folder.draft(state.as_ref())?;
        let (summary, _) = seal(home, &identity, &folder.component, draft, &self.output)?;
        let Folder { file, sha256, .. } = folder;

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
