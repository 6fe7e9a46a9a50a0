//! Owners, users and strangers: each with a home of the SDK in a directory of their own.

use std::fs::{self, File};
use std::io::{BufReader, Cursor};
use std::path::PathBuf;
use std::time::Duration;

use bield_envelope::{Digest, Principal, Signed, SigningKey, Time, Verified};
use bield_grant::{CodeSelector, Grant, Isolation, PackageSelector, UserSelector};
use bield_package::onnx::Signature;
use bield_package::tensor::TensorSpec;
use bield_package::{ManifestDraft, NamedModel, PackageHead, PackageKey, pack};
use bield_protocol::service::{GrantId, PackageReference};
use bield_receipt::StateHeads;
use bield_sdk::{
    Answered, CallError, FunctionAnswered, FunctionCall, FunctionFile, FunctionState, Gateway,
    Home, HomeError, KeyService, Randomness, ServiceError, Target, Tensor, Trust, now,
};
use rand_core::Rng as _;

/// Somebody who uses the system from outside the host.
pub struct Person {
    /// Keys, trust, receipts.
    pub home: Home,
    /// Who they are.
    pub key: SigningKey,
    /// What they trust.
    pub trust: Trust,
}

/// A package somebody made.
pub struct Package {
    /// Its name everywhere.
    pub digest: Digest,
    /// The sealed file, as it left its owner.
    pub file: PathBuf,
    /// Opens it.
    pub key: PackageKey,
    /// Bytes before its first chunk.
    pub head_bytes: u64,
}

impl Person {
    /// Makes a home in `directory`; an identity that is there already is kept.
    ///
    /// # Errors
    /// The directory cannot be written, or `trust` does not parse.
    pub fn settle(directory: PathBuf, trust: &str) -> anyhow::Result<Self> {
        let home = Home::at(directory);
        let key = match home.identity() {
            Err(HomeError::NoIdentity { .. }) => home.create_identity(&mut Randomness)?,
            key => key?,
        };
        Ok(Self {
            key,
            trust: home.create_trust(trust)?,
            home,
        })
    }

    /// Who they are to others.
    pub fn principal(&self) -> Principal {
        self.key.principal()
    }

    /// An attested session with the key service.
    ///
    /// # Errors
    /// Nobody there, or it does not pass.
    pub fn service(&self) -> Result<KeyService<'_>, ServiceError> {
        KeyService::connect(&self.home, &self.trust, now(), &mut Randomness)
    }

    /// Packs `model` in chunks of 256 bytes and keeps the key; tells nobody.
    ///
    /// # Errors
    /// The model does not pack, or the home cannot be written.
    pub fn pack(&self, name: &str, model: &[u8]) -> anyhow::Result<Package> {
        self.pack_as(name, "1", model)
    }

    /// As [`pack`](Self::pack), of some version.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_as(&self, name: &str, version: &str, model: &[u8]) -> anyhow::Result<Package> {
        self.pack_in(256, name, version, model)
    }

    fn pack_in(
        &self,
        chunk_bytes: u32,
        name: &str,
        version: &str,
        model: &[u8],
    ) -> anyhow::Result<Package> {
        let draft = ManifestDraft {
            chunk_bytes,
            ..ManifestDraft::onnx(name.parse()?, version.parse()?, Signature::read(model)?)
        };
        self.seal(&format!("{name}-{version}"), draft, model)
    }

    fn seal(&self, name: &str, draft: ManifestDraft, model: &[u8]) -> anyhow::Result<Package> {
        let key = PackageKey::generate(&mut Randomness);
        let file = self.home.path().join(format!("{name}.bield"));
        let mut sink = File::create(&file)?;
        let summary = pack(
            &mut Cursor::new(model),
            draft,
            &self.key,
            &key,
            &mut Randomness,
            &mut sink,
            &mut |_, _| {},
        )?;
        self.home.keep_package_key(summary.digest, &key)?;
        let head = PackageHead::read(&mut BufReader::new(File::open(&file)?))?;
        Ok(Package {
            digest: summary.digest,
            file,
            key,
            head_bytes: head.head_bytes(),
        })
    }

    /// Gives a package's key to the key service and the package to the gateway.
    ///
    /// # Errors
    /// Either refuses.
    pub fn register(&self, package: &Package, model: &[u8]) -> anyhow::Result<()> {
        let signature = Signature::read(model)?;
        self.bring(package, signature.inputs, signature.outputs)
    }

    fn bring(
        &self,
        package: &Package,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> anyhow::Result<()> {
        self.tell(package, inputs, outputs)?;
        let bytes = fs::metadata(&package.file)?.len();
        let source = &mut File::open(&package.file)?;
        Gateway::new(self.trust.gateway()).put_package(
            package.digest,
            source,
            bytes,
            &mut |_, _| {},
        )?;
        Ok(())
    }

    /// Gives a package's key to the key service alone: enough where no runtime is to open it.
    ///
    /// # Errors
    /// It refuses.
    pub fn offer(&self, package: &Package, model: &[u8]) -> anyhow::Result<()> {
        let signature = Signature::read(model)?;
        self.tell(package, signature.inputs, signature.outputs)
    }

    fn tell(
        &self,
        package: &Package,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> anyhow::Result<()> {
        let head = PackageHead::read(&mut BufReader::new(File::open(&package.file)?))?;
        let mut service = self.service()?;
        service.register(&self.key)?;
        let header = head.signed_header().clone();
        service.put_package(&self.key, header, inputs, outputs, &package.key)?;
        Ok(service.close()?)
    }

    /// Packs and registers `model`.
    ///
    /// # Errors
    /// See [`pack`](Self::pack) and [`register`](Self::register).
    pub fn publish(&self, name: &str, model: &[u8]) -> anyhow::Result<Package> {
        let package = self.pack(name, model)?;
        self.register(&package, model)?;
        Ok(package)
    }

    /// Packs and registers a function: what its `bield.toml` says, its component, and the packages of its models by name.
    /// Its state is the one in this home, or a new one.
    ///
    /// # Errors
    /// The file does not parse, or as [`publish`](Self::publish).
    pub fn publish_function(
        &self,
        described: &str,
        component: &[u8],
        models: &[(&str, &Package)],
    ) -> anyhow::Result<Package> {
        let described = FunctionFile::parse(described)?;
        let certifier = self.service()?.principal();
        let state = match described.buckets.is_empty() {
            true => None,
            false => Some(FunctionState::open_or_create(
                &self.home,
                &self.key,
                &described.name,
                certifier,
                now(),
                &mut Randomness,
            )?),
        };
        let models = models.iter().map(|(name, package)| NamedModel {
            name: (*name).to_owned(),
            package: package.digest,
        });
        let draft = described.draft(component, models.collect(), state.as_ref())?;
        let name = format!("{}-{}", described.name, described.version);
        let package = self.seal(&name, draft, component)?;
        self.bring(&package, Vec::new(), Vec::new())?;
        Ok(package)
    }

    /// Calls a function through the SDK, from the first connection on; `seen` is what the caller knows of its state.
    ///
    /// # Errors
    /// The call's; a target that is not to be had is a failure of the test.
    pub fn call_function(
        &self,
        package: &Package,
        path: &str,
        body: &[u8],
        seen: Option<&StateHeads>,
    ) -> anyhow::Result<Result<FunctionAnswered, CallError>> {
        let target = self.target(package)?;
        let call = FunctionCall {
            path: path.to_owned(),
            content_type: "text/plain".to_owned(),
            body: body.to_vec().into(),
            seen: seen.cloned(),
        };
        Ok(target.call_function(&self.key, call, &mut Randomness))
    }

    /// As [`publish`](Self::publish), in chunks as long as they are outside of tests.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_large(&self, name: &str, model: &[u8]) -> anyhow::Result<Package> {
        let package = self.pack_in(1 << 20, name, "1", model)?;
        self.register(&package, model)?;
        Ok(package)
    }

    /// Grants the package to `user` for an hour, in the code they both trust.
    ///
    /// # Errors
    /// The key service is not there, or refuses.
    pub fn grant(&self, package: &Package, user: &Person) -> Result<Verified<Grant>, ServiceError> {
        let from = now().minus(Duration::from_secs(60));
        self.grant_for(package, user, from, now().plus(Duration::from_secs(3600)))
    }

    /// As [`grant`](Self::grant), from `not_before` until `not_after`.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub fn grant_for(
        &self,
        package: &Package,
        user: &Person,
        not_before: Time,
        not_after: Time,
    ) -> Result<Verified<Grant>, ServiceError> {
        self.allow(Grant {
            not_before,
            not_after,
            ..self.draft(package, user)
        })
    }

    /// A grant as [`grant`](Self::grant) makes it, not signed yet, for tests to alter.
    pub fn draft(&self, package: &Package, user: &Person) -> Grant {
        let mut id = [0; 16];
        Randomness.fill_bytes(&mut id);
        Grant {
            id,
            package: PackageSelector::Digest(package.digest),
            user: UserSelector::Principal(user.principal()),
            code: CodeSelector::Measurement(self.trust.code()[0].clone()),
            isolation: Isolation::Shared,
            not_before: now().minus(Duration::from_secs(60)),
            not_after: now().plus(Duration::from_secs(3600)),
            requests: None,
        }
    }

    /// Signs and registers a grant; what is acknowledged is in the home's head afterwards.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub fn allow(&self, grant: Grant) -> Result<Verified<Grant>, ServiceError> {
        let grant = Signed::sign(&self.key, grant);
        let mut service = self.service()?;
        service.grant(&self.key, &grant)?;
        service.close()?;
        Ok(grant)
    }

    /// Ends a grant. Returns the size of the log that contains this.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub fn revoke(&self, grant: &Grant) -> Result<u64, ServiceError> {
        let mut service = self.service()?;
        let size = service.revoke(&self.key, &[GrantId(grant.id)])?;
        service.close()?;
        Ok(size)
    }

    /// The verified way to call a package.
    ///
    /// # Errors
    /// The key service is not there, or refuses.
    pub fn target(&self, package: &Package) -> Result<Target, ServiceError> {
        let reference = PackageReference::Digest(package.digest);
        self.service()?
            .target(&reference, &self.trust.code()[0], now())
    }

    /// Calls a package through the SDK, from the first connection on.
    ///
    /// # Errors
    /// The call's; a target that is not to be had is a failure of the test.
    pub fn call(
        &self,
        package: &Package,
        inputs: Vec<Tensor>,
    ) -> anyhow::Result<Result<Answered, CallError>> {
        let target = self.target(package)?;
        Ok(target.call(&self.key, inputs, Vec::new(), &mut Randomness))
    }

    /// The key to seal a [`Letter`](crate::Letter) with.
    ///
    /// # Errors
    /// The key service is not there, or refuses.
    pub fn key_configuration(
        &self,
        package: &Package,
    ) -> anyhow::Result<bield_protocol::service::KeyConfiguration> {
        crate::letter::key_configuration(&self.trust, package.digest)
    }
}

/// The input of the tiny model: `batch` rows of four numbers between -1 and 1.
///
/// # Panics
/// Never: the shape fits.
pub fn numbers(batch: u64) -> Vec<Tensor> {
    let number = || f64::from(Randomness.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let values: Vec<f32> = (0..4 * batch).map(|_| number() as f32).collect();
    let input = Tensor::from_f32("input", &[batch, 4], &values);
    vec![input.expect("four numbers a row")]
}

/// The tiny model with `note` as its documentation, so that every test has bytes of its own.
pub fn tiny_model(note: &str) -> Vec<u8> {
    noted(bield_fixtures::tiny_model(), note)
}

/// A model with `note` as its documentation.
pub fn noted(mut model: Vec<u8>, note: &str) -> Vec<u8> {
    // onnx.proto: ModelProto.doc_string is field 6, a string of under 128 bytes has one byte of length.
    let length = u8::try_from(note.len()).unwrap_or(127).min(127);
    model.extend([6 << 3 | 2, length]);
    model.extend(&note.as_bytes()[..usize::from(length)]);
    model
}
