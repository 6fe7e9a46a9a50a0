//! A function's folder, read to be sealed: what `bield pack`, `bield deploy` and `bield dev` make a package of.
//!
//! In: the folder, or its `bield.toml`. Out: the description, the component, the packages of its models. Always true:
//! nothing is sealed or sent before all of it was read and is what it has to be.

use std::path::{Path, PathBuf};

use bield_envelope::{Digest, Principal, SigningKey};
use bield_package::{ManifestDraft, NamedModel, NotAComponent, PackageHead, component_digest};
use bield_sdk::{
    FUNCTION_FILE, FunctionFile, FunctionFileError, FunctionState, Home, NamedPackage, Randomness,
    Reference, now,
};

use super::pack::at;
use crate::failure::Failure;

/// What is there.
pub(super) struct Folder {
    pub(super) file: FunctionFile,
    pub(super) directory: PathBuf,
    pub(super) component: Vec<u8>,
    /// SHA-256 of the component: what the function is.
    pub(super) sha256: [u8; 32],
    /// Packages of `owner`'s home by the names that the function loads them by.
    pub(super) models: Vec<NamedModel>,
}

impl Folder {
    /// Reads the folder, or the one that the `bield.toml` is in.
    pub(super) fn read(home: &Home, owner: &Principal, path: &Path) -> Result<Self, Failure> {
        let (file, directory) = described(path)?;
        let component = file.component(&directory)?;
        let sha256 = component_digest(&component)
            .map_err(|error: NotAComponent| at(&directory.join(&file.source), error))?;
        let models = file
            .models
            .iter()
            .map(|model| named(home, owner, &directory, model))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            file,
            directory,
            component,
            sha256,
            models,
        })
    }

    /// The function's state, which it has exactly when it has buckets: the one in the home, or a new one.
    /// `certifier` says which key service's certificates admit its writers.
    pub(super) fn state(
        &self,
        home: &Home,
        identity: &SigningKey,
        certifier: impl FnOnce() -> Result<Principal, Failure>,
    ) -> Result<Option<FunctionState>, Failure> {
        if self.file.buckets.is_empty() {
            return Ok(None);
        }
        let (certifier, entropy) = (certifier()?, &mut Randomness);
        let name = &self.file.name;
        let state = FunctionState::open_or_create(home, identity, name, certifier, now(), entropy)?;
        Ok(Some(state))
    }

    /// What is packed.
    pub(super) fn draft(&self, state: Option<&FunctionState>) -> Result<ManifestDraft, Failure> {
        let draft = self.file.draft(&self.component, self.models.clone(), state);
        draft.map_err(|error| at(&self.directory.join(&self.file.source), error))
    }
}

/// The description in a folder, or in this file; also says which folder it is in.
pub(super) fn described(path: &Path) -> Result<(FunctionFile, PathBuf), Failure> {
    FunctionFile::read(path).map_err(|error| match error {
        FunctionFileError::File(error) if error.is_missing() => Failure::local(format_args!(
            "{error}: a function is described by its {FUNCTION_FILE}; `bield new NAME` begins one"
        )),
        error => error.into(),
    })
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
