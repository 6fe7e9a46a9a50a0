//! The state of a function as its owner keeps it: a capsule's beginning, its configuration and its keys.
//!
//! ```text
//! $BIELD_HOME/functions/<name>/   (0700)
//!   keys     key ring of the state; 0600, never replaced by another state's
//!   keys-new the same, of a state that is being made
//!   state    metadata and the owner's config chain, as an export (spec/06 §12)
//!   lock     locked while one of them changes
//! ```
//!
//! The owner of the capsule is the identity that packs: its key signs the config chain, under a domain that no
//! statement has (`spec/06 §3`). The chain says two things: certificates of the key service admit writers, and which
//! key generation 1 has. It lists no code: a certified program that the owner never granted has no keys of the state,
//! so that nothing it writes opens for those who do; who has them is decided by grants, in one place, and a new runtime
//! needs no new package. When the deployment's key service is another one, a record that certifies it is added.
//!
//! Always true: there is one state for one name, made once; its keys are stored before anybody gets them; an owner's
//! record is in the home before it leaves it, so that none is signed twice for one place.
//!
//! Not here: the records of the state itself, which no home has.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use bield_capsule::{
    CapsuleName, Change, ExportError, ExportReader, GenerationKey, KEYRING_BYTES_MAX, KeyRing,
    KeyRingError, Metadata, MetadataError, Received, Refused, Suite, Verifier, VerifierPolicy,
    WriteError, Writer, WriterKey, export_header, export_record,
};
use bield_envelope::{Principal, Secret, SigningKey, Time, wire::WireError};
use bield_package::{PackageName, STATE_CONFIG_BYTES_MAX, StateKeys, StateSpec};
use rand_core::CryptoRng;

use crate::files::{self, FileError, Write};
use crate::{Home, HomeError};

/// The state of one function.
pub struct FunctionState {
    verifier: Verifier,
    config: Vec<Received>,
    ring: KeyRing,
}

/// A function's state is missing in the home directory, damaged, or not this identity's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionStateError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no export of a config chain.
    #[error("{path}: {error}; restore it from a backup", path = .path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: ExportError,
    },
    /// A record does not hold.
    #[error("{path}: {error}; restore it from a backup", path = .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: Box<Refused>,
    },
    /// The keys of a state are here, and the state is not: another one would replace them.
    #[error(
        "{path} holds the keys of a state whose file `state` is missing beside it: bring that back from a backup; only if \
         the function was never deployed, remove the keys and deploy it", path = .path.display()
    )]
    KeysAlone {
        /// The keys.
        path: PathBuf,
    },
    /// The key ring does not decode.
    #[error("{path}: {error}; restore it from a backup", path = .path.display())]
    Ring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: WireError,
    },
    /// The keys are not those of the state.
    #[error("{path}: {error}; restore it from a backup", path = .path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: KeyRingError,
    },
    /// Another identity owns the state.
    #[error(
        "{path} is the state of a function of another identity: pack it from the home that made it, or choose another \
         name", path = .path.display()
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
    },
    /// The owner's record would contradict those before it.
    #[error("{path}: {error}", path = .path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What is contradicted.
        #[source]
        error: Box<WriteError>,
    },
    /// The metadata cannot be made.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl FunctionState {
    /// The state of the function called `name`: the one in the home, or a new one. Certificates of `certifier`, the key
    /// service's principal, admit writers from then on.
    ///
    /// # Errors
    /// The home cannot be written, or what is there is damaged or another identity's.
    pub fn open_or_create(
        home: &Home,
        owner: &SigningKey,
        name: &PackageName,
        certifier: Principal,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, FunctionStateError> {
        home.make()?;
        let path = home.path().join(FUNCTIONS).join(name.as_str());
        files::make_private_directory(&path)?;
        files::check_directory(&path)?;
        let _lock = lock(&path)?;
        let mut this = match Self::read(&path) {
            Err(FunctionStateError::File(error))
                if error.is_missing() && !path.join(STATE).exists() =>
            {
                Self::create(&path, owner, name, certifier, now, entropy)?
            }
            found => found?,
        };
        let key = owner_key(owner);
        if this.metadata().owner() != key.public() {
            return Err(FunctionStateError::OtherOwner { path });
        }
        if !this
            .verifier
            .config()
            .certifiers()
            .any(|known| *known == certifier)
        {
            this.configure(&path, key, Change::Certify(certifier), now)?;
        }
        Ok(this)
    }

    /// The capsule that the state is.
    #[must_use]
    pub fn capsule(&self) -> CapsuleName {
        self.metadata().name()
    }

    /// The capsule's metadata.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        self.verifier.metadata()
    }

    /// The owner's chain.
    #[must_use]
    pub fn config(&self) -> &[Received] {
        &self.config
    }

    /// What a package says of the state; holds its keys.
    #[must_use]
    pub fn spec(&self) -> StateSpec {
        let records = self.config.iter();
        StateSpec {
            metadata: self.metadata().as_bytes().to_vec(),
            keyring: StateKeys::new(&self.ring.encode_secret()),
            config: records
                .map(|record| record.as_bytes().to_vec().into())
                .collect(),
        }
    }

    fn create(
        path: &Path,
        owner: &SigningKey,
        name: &PackageName,
        certifier: Principal,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, FunctionStateError> {
        let key = owner_key(owner);
        let metadata = Metadata::new(key.public(), Some(name.as_str()), now, entropy)?;
        let generation = GenerationKey::generate(1, entropy);
        let changes = [
            Change::Certify(certifier),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, record) = Writer::owner(key, &metadata, &changes, now).map_err(refuse(path))?;
        let mut this = Self {
            verifier: Verifier::new(metadata, VerifierPolicy::default()),
            config: Vec::new(),
            ring: KeyRing::new(),
        };
        this.take(path, record)?;
        let keys = path.join(KEYS);
        this.ring
            .insert(generation)
            .map_err(|error| FunctionStateError::Keys {
                path: keys.clone(),
                error,
            })?;
        if keys.exists() {
            return Err(FunctionStateError::KeysAlone { path: keys });
        }
        // New keys that are here without a state are of one that nobody was ever told of.
        let draft = path.join(KEYS_NEW);
        files::write(&draft, &this.ring.encode_secret(), Write::Secret)?;
        this.write(path)?;
        finish(path)?;
        Ok(this)
    }

    fn read(path: &Path) -> Result<Self, FunctionStateError> {
        let at = path.join(STATE);
        if at.exists() {
            finish(path)?;
        }
        let bytes = files::read_own(&at, STATE_BYTES_MAX)?;
        let broken = |error| FunctionStateError::Export {
            path: at.clone(),
            error,
        };
        let export = ExportReader::new(&bytes).map_err(broken)?;
        let mut this = Self {
            verifier: Verifier::new(export.metadata().clone(), VerifierPolicy::default()),
            config: Vec::new(),
            ring: KeyRing::new(),
        };
        for exported in export {
            this.take(&at, exported.map_err(broken)?.record)?;
        }
        let keys = path.join(KEYS);
        let ring = files::read_secret(&keys, KEYRING_BYTES_MAX as u64)?;
        this.ring = KeyRing::decode(&ring).map_err(|error| FunctionStateError::Ring {
            path: keys.clone(),
            error,
        })?;
        let checked = match this.ring.newest() {
            Some(newest) => newest.check(this.metadata(), this.verifier.config()),
            None => Err(KeyRingError::NoGeneration { generation: 1 }),
        };
        checked.map_err(|error| FunctionStateError::Keys { path: keys, error })?;
        Ok(this)
    }

    fn configure(
        &mut self,
        path: &Path,
        key: WriterKey,
        change: Change,
        now: Time,
    ) -> Result<(), FunctionStateError> {
        let owner = self.metadata().owner_id();
        let Some(chain) = self.verifier.chain(&owner) else {
            // A state without a config record was never written.
            return Err(FunctionStateError::OtherOwner {
                path: path.to_owned(),
            });
        };
        let (tip, levels) = (chain.signed_head(), chain.levels().clone());
        let record =
            Writer::resume_owner(key, self.metadata(), &tip, self.verifier.config(), levels)
                .and_then(|mut writer| writer.configure(&[change], now))
                .map_err(refuse(path))?;
        self.take(path, record)?;
        self.write(path)
    }

    /// Verifies a config record and adds it.
    fn take(&mut self, path: &Path, record: Received) -> Result<(), FunctionStateError> {
        let applied = self
            .verifier
            .verify(record.clone())
            .and_then(|verified| self.verifier.apply(verified));
        applied.map_err(|error| FunctionStateError::Record {
            path: path.to_owned(),
            error: Box::new(error),
        })?;
        self.config.push(record);
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<(), FunctionStateError> {
        let mut bytes = export_header(self.metadata());
        for record in &self.config {
            export_record(record, &mut bytes);
        }
        Ok(files::write(&path.join(STATE), &bytes, Write::Public)?)
    }
}

impl Home {
    /// The capsule that is the state of a function that is packed here; `None` when there is none of this name.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn function_capsule(&self, name: &str) -> Result<Option<CapsuleName>, FunctionStateError> {
        let Ok(name) = name.parse::<PackageName>() else {
            return Ok(None);
        };
        let path = self.path().join(FUNCTIONS).join(name.as_str()).join(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_own(&path, STATE_BYTES_MAX)?;
        let export = ExportReader::new(&bytes);
        let export = export.map_err(|error| FunctionStateError::Export { path, error })?;
        Ok(Some(export.metadata().name()))
    }
}

/// The identity's key, as the one that configures a capsule.
fn owner_key(owner: &SigningKey) -> WriterKey {
    let seed = Secret::from_bytes(*owner.seed().expose());
    WriterKey::from_seed(Suite::Ed25519, seed).expect("every seed is one of Ed25519")
}

fn refuse(path: &Path) -> impl Fn(WriteError) -> FunctionStateError {
    let path = path.to_owned();
    move |error| FunctionStateError::Write {
        path: path.clone(),
        error: Box::new(error),
    }
}

/// Gives the keys of a state that is there whole their name, where making it was interrupted before.
fn finish(path: &Path) -> Result<(), FileError> {
    let (draft, keys) = (path.join(KEYS_NEW), path.join(KEYS));
    if draft.exists() && !keys.exists() {
        std::fs::rename(&draft, &keys).map_err(|error| FileError::io(&keys, error))?;
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, FileError> {
    let path = path.join(LOCK);
    let at = |error| FileError::io(&path, error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(at)?;
    file.lock().map_err(at)?;
    Ok(file)
}

const FUNCTIONS: &str = "functions";
const STATE: &str = "state";
const KEYS: &str = "keys";
const KEYS_NEW: &str = "keys-new";
const LOCK: &str = "lock";
/// What a package may hold of it, and lengths.
const STATE_BYTES_MAX: u64 = STATE_CONFIG_BYTES_MAX as u64 + (64 << 10);

#[cfg(test)]
mod tests {
    use bield_capsule::{Batch, Config};
    use bield_envelope::Seeded;

    use super::*;

    const NOON: Time = Time::from_secs(1_800_000_000);

    fn key(number: u8) -> SigningKey {
        SigningKey::from_seed(Secret::from_bytes([number; 32]))
    }

    struct Stage {
        _directory: tempfile::TempDir,
        home: Home,
    }

    impl Stage {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let home = Home::at(directory.path().join("home"));
            Self {
                _directory: directory,
                home,
            }
        }

        fn state(&self, owner: u8, service: u8) -> Result<FunctionState, FunctionStateError> {
            let (name, service) = ("cart".parse().unwrap(), key(service).principal());
            let entropy = &mut Seeded::new(7);
            FunctionState::open_or_create(&self.home, &key(owner), &name, service, NOON, entropy)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.home.path().join("functions/cart").join(name)
        }
    }

    /// What a runtime makes of the package: the configuration and the keys.
    fn opened(spec: &StateSpec) -> (Config, KeyRing) {
        let metadata = Metadata::decode(&spec.metadata).unwrap();
        let mut verifier = Verifier::new(metadata, VerifierPolicy::default());
        for record in &spec.config {
            let record = Received::decode(record.to_vec()).unwrap();
            let verified = verifier.verify(record).unwrap();
            verifier.apply(verified).unwrap();
        }
        let ring = KeyRing::decode(spec.keyring.expose()).unwrap_or_else(|error| panic!("{error}"));
        (verifier.config().clone(), ring)
    }

    #[test]
    fn a_state_is_made_once_and_stays_the_same_for_later_versions() {
        let stage = Stage::new();
        let first = stage.state(1, 2).unwrap();
        let again = stage.state(1, 2).unwrap();
        assert_eq!(first.capsule(), again.capsule());
        assert_eq!(first.config(), again.config());
        assert_eq!(
            first.metadata().owner().as_bytes(),
            key(1).principal().as_bytes()
        );
        assert_eq!(first.metadata().label(), Some("cart"));
        let (spec, later) = (first.spec(), again.spec());
        assert_eq!(spec.keyring.expose(), later.keyring.expose());
        let (config, ring) = opened(&spec);
        let generation = ring.newest().unwrap();
        assert_eq!(generation.check(first.metadata(), &config), Ok(()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let mode = stage.file("keys").metadata().unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_writer_that_the_key_service_certified_may_write_whatever_its_code() {
        let stage = Stage::new();
        let state = stage.state(1, 2).unwrap();
        let (config, ring) = opened(&state.spec());
        let certified = |signer: u8, code: u8| {
            let writer = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(code.into()));
            let certificate = bield_capsule::WriterCertificate {
                capsule: state.capsule(),
                writer: writer.id(),
                code: Some(vec![code; 33]),
                simulated: false,
                not_before: NOON,
                not_after: NOON.plus(std::time::Duration::from_secs(3600)),
            };
            let certificate = bield_envelope::Signed::sign(&key(signer), certificate);
            let head = config.head().unwrap();
            let certificate = Some(certificate.as_bytes());
            Writer::open(writer, state.metadata(), head, certificate, NOON).unwrap()
        };
        for code in [1, 2] {
            let (mut writer, open) = certified(2, code);
            let mut batch = Batch::new();
            batch.push(b"entry").unwrap();
            let generation = ring.newest().unwrap();
            let entropy = &mut Seeded::new(3);
            let data = writer.seal(&batch, generation, &[], NOON, entropy).unwrap();
            let mut verifier = state.verifier.clone();
            for record in [open, data] {
                let verified = verifier.verify(record).unwrap();
                verifier.apply(verified).unwrap();
            }
        }
        let (_, stranger) = certified(3, 1);
        assert!(state.verifier.verify(stranger).is_err());
    }

    #[test]
    fn another_key_service_is_added_to_the_same_chain() {
        let stage = Stage::new();
        let first = stage.state(1, 2).unwrap();
        let moved = stage.state(1, 3).unwrap();
        assert_eq!(first.capsule(), moved.capsule());
        assert_eq!(moved.config().len(), 2);
        assert_eq!(moved.config()[0], first.config()[0]);
        let back = stage.state(1, 2).unwrap();
        assert_eq!(back.config(), moved.config(), "both stay");
        let (config, _) = opened(&back.spec());
        let (mut known, mut need) = (
            config.certifiers().copied().collect::<Vec<_>>(),
            vec![key(2).principal(), key(3).principal()],
        );
        known.sort();
        need.sort();
        assert_eq!(known, need);
    }

    #[test]
    fn another_identity_damage_and_missing_keys_are_refused() {
        let stage = Stage::new();
        stage.state(1, 2).unwrap();
        let other = stage.state(9, 2).err().unwrap();
        assert!(
            matches!(other, FunctionStateError::OtherOwner { .. }),
            "{other}"
        );
        let good = std::fs::read(stage.file("state")).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(stage.file("state"), bad).unwrap();
            assert!(stage.state(1, 2).is_err(), "byte {at}");
        }
        std::fs::write(stage.file("state"), &good).unwrap();
        std::fs::write(stage.file("keys"), KeyRing::new().encode_secret()).unwrap();
        assert!(matches!(
            stage.state(1, 2),
            Err(FunctionStateError::Keys { .. })
        ));
        std::fs::remove_file(stage.file("keys")).unwrap();
        assert!(
            stage.state(1, 2).is_err(),
            "a state without keys is not made anew"
        );
    }

    #[test]
    fn keys_outlive_a_state_file_that_is_lost_and_one_that_was_never_written() {
        let stage = Stage::new();
        let first = stage.state(1, 2).unwrap();
        let (keys, state) = (stage.file("keys"), stage.file("state"));
        let (ring, description) = (
            std::fs::read(&keys).unwrap(),
            std::fs::read(&state).unwrap(),
        );
        std::fs::remove_file(&state).unwrap();
        let refused = stage.state(1, 2).err().unwrap();
        assert!(
            matches!(refused, FunctionStateError::KeysAlone { .. }),
            "{refused}"
        );
        assert_eq!(std::fs::read(&keys).unwrap(), ring, "they are still there");
        // Cut off after the state was written, and before.
        std::fs::write(&state, &description).unwrap();
        std::fs::rename(&keys, stage.file("keys-new")).unwrap();
        assert_eq!(stage.state(1, 2).unwrap().capsule(), first.capsule());
        assert!(keys.exists());
        std::fs::remove_file(&state).unwrap();
        std::fs::rename(&keys, stage.file("keys-new")).unwrap();
        stage.state(1, 2).unwrap();
        assert!(keys.exists() && state.exists());
    }
}
