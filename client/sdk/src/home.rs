//! The directory where one person's keys, trust and receipts live.
//!
//! ```text
//! $BIELD_HOME or ./.bield (0700)
//!   identity.key              signing seed, hex, 0600, never replaced
//!   trust.toml                what is trusted (see Trust)
//!   packages/<digest>.key     package seeds, hex, 0600, never replaced
//!   packages/<digest>.head    sealed heads of packages, so that a grant needs no model at hand
//!   receipts/<request>.receipt
//!   services                  key services whose evidence met trust.toml, one a line
//!   logs/                     the newest verified head of each key service's log; how far audits were seen
//!   functions/<name>/         the state of a function that is packed here (see FunctionState)
//!   states/                   what was seen of functions' states, by callers
//!   shares/                   recovery shares held here, 0600, never replaced
//!   capsules/<name>/          see capsule::CapsuleHome
//! ```
//!
//! Always true: a key file is written before what it opens is used, is never replaced by another
//! key, and is refused when others can read it. A home that others own or can change is refused, and
//! so is such a trust file: it is the root of all trust. Other trust forgets the services, and, when it
//! names another service, which of the logs met is the one to go on with; the heads of logs are never
//! forgotten.

use std::path::{Path, PathBuf};

use bield_envelope::{Digest, Principal, Secret, SigningKey};
use bield_package::{PackageHead, PackageKey, PackageName, PackageVersion};
use bield_receipt::ReceiptBundle;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::files::{self, FileError, Write};
use crate::{Trust, TrustError};

mod audits;
mod heads;
mod shares;
mod succession;

pub(crate) use heads::Compared;
pub use shares::KeptShare;

/// A home directory; nothing is read or written until asked.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

/// Something in the home directory is missing or not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no identity yet.
    #[error("no identity at {path}: make one with `bield init`", path = .path.display())]
    NoIdentity {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is an identity already; it is not replaced, because grants name it.
    #[error("{path} exists and is not replaced: grants name this identity", path = .path.display())]
    IdentityExists {
        /// Where it is.
        path: PathBuf,
    },
    /// There is no trust file yet.
    #[error(
        "nothing is trusted yet: {path} is missing; write it, or copy one with \
         `bield init --trust FILE`", path = .path.display()
    )]
    NoTrust {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is another trust file already.
    #[error(
        "{path} exists and says something else; remove it first to trust another deployment",
        path = .path.display()
    )]
    TrustExists {
        /// Where it is.
        path: PathBuf,
    },
    /// The trust file is not usable.
    #[error("{path}: {error}", path = .path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: TrustError,
    },
    /// The key of a package is not here.
    #[error(
        "no key for package {package}: {path} is missing; only the home that packed it can do this",
        path = .path.display()
    )]
    NoPackageKey {
        /// The package.
        package: Digest,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// What was remembered cannot be read back, so nothing can be compared with it.
    #[error(
        "{path} is damaged: bring it back from a backup; what it remembers protects this home from a key \
         service or a function's state that was set back", path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file that was named as a share is none.
    #[error("{path} holds no recovery share: name a file that `bield recover take` wrote, or a copy of one", path = .path.display())]
    NotAShare {
        /// The file.
        path: PathBuf,
    },
    /// Another share is kept under the same name.
    #[error("{path} holds another share and is not replaced: move it away if it is worth nothing", path = .path.display())]
    ShareExists {
        /// The file.
        path: PathBuf,
    },
    /// A key file does not hold a key.
    #[error("{path} does not hold 64 hexadecimal digits: restore it from a backup", path = .path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// A key service whose evidence this home has verified before; [`Trust::accepts`] says whether it
/// still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    /// Who it is: the anchor of receipts.
    pub principal: Principal,
    /// What ran there, as text.
    pub measurement: String,
    /// Whether it ran in a software TEE, which protects nothing.
    pub simulated: bool,
}

impl Home {
    /// The home at `path`, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// `$BIELD_HOME`, or `.bield` in the current directory.
    #[must_use]
    pub fn from_environment() -> Self {
        let set = std::env::var_os("BIELD_HOME").filter(|path| !path.is_empty());
        Self::at(set.map_or_else(|| PathBuf::from(".bield"), PathBuf::from))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an identity. One that is there stays.
    ///
    /// # Errors
    /// [`HomeError::IdentityExists`], or the directory cannot be written.
    pub fn create_identity(&self, entropy: &mut impl CryptoRng) -> Result<SigningKey, HomeError> {
        self.make()?;
        let (key, path) = (SigningKey::generate(entropy), self.path.join(IDENTITY));
        match files::write(&path, &to_hex(key.seed()), Write::SecretOnce) {
            Err(error) if error.is_existing() => Err(HomeError::IdentityExists { path }),
            written => Ok(written.map(|()| key)?),
        }
    }

    /// The identity.
    ///
    /// # Errors
    /// [`HomeError::NoIdentity`], or a file that is no key or that others can read.
    pub fn identity(&self) -> Result<SigningKey, HomeError> {
        files::check_directory(&self.path)?;
        let path = self.path.join(IDENTITY);
        match read_key(&path) {
            Err(HomeError::File(error)) if error.is_missing() => {
                Err(HomeError::NoIdentity { path })
            }
            seed => Ok(SigningKey::from_seed(seed?)),
        }
    }

    /// Replaces the trust file, after checking the new one, and forgets the services of the old. When it names
    /// another service (other principal, or none of the code), the next one met is believed; otherwise the
    /// log to go on with stays the one it was. A log that was met is compared in any case.
    ///
    /// # Errors
    /// A text that is no trust, or the file cannot be written.
    pub fn replace_trust(&self, text: &str) -> Result<Trust, HomeError> {
        self.make()?;
        let path = self.path.join(TRUST);
        let trust = Trust::parse(text).map_err(|error| HomeError::Trust {
            path: path.clone(),
            error,
        })?;
        let before = match files::read_own(&path, TRUST_BYTES_MAX) {
            Err(error) if error.is_missing() => None,
            bytes => Trust::parse(&String::from_utf8_lossy(&bytes?)).ok(),
        };
        let same = self.goes_on(&trust, before.as_ref())?;
        files::remove(&self.path.join(SERVICES))?;
        if !same {
            self.forget_current()?;
        }
        files::write(&path, text.as_bytes(), Write::Public)?;
        Ok(trust)
    }

    /// Keeps a trust file after checking it. Another one that is there stays.
    ///
    /// # Errors
    /// A text that is no trust, or [`HomeError::TrustExists`].
    pub fn create_trust(&self, text: &str) -> Result<Trust, HomeError> {
        self.make()?;
        let path = self.path.join(TRUST);
        let trust = Trust::parse(text).map_err(|error| HomeError::Trust {
            path: path.clone(),
            error,
        })?;
        match files::write(&path, text.as_bytes(), Write::PublicOnce) {
            Err(error) if error.is_existing() => {
                let same = files::read_own(&path, TRUST_BYTES_MAX)? == text.as_bytes();
                if same {
                    Ok(trust)
                } else {
                    Err(HomeError::TrustExists { path })
                }
            }
            written => {
                written?;
                // Left over from a trust file that was removed by hand.
                let same = self.goes_on(&trust, None)?;
                files::remove(&self.path.join(SERVICES))?;
                if !same {
                    self.forget_current()?;
                }
                Ok(trust)
            }
        }
    }

    /// Whether new trust names the service whose log this home goes on with. What cannot be read is kept.
    fn goes_on(&self, trust: &Trust, before: Option<&Trust>) -> Result<bool, HomeError> {
        let Ok(Some(head)) = self.head() else {
            return Ok(true);
        };
        if let Some(before) = before {
            return Ok(trust.names_the_service_of(before));
        }
        // The trust file was removed: what was verified under it tells which service it named.
        let known = self.known_services()?;
        let mut known = known
            .iter()
            .filter(|known| known.principal == head.service());
        Ok(trust.principal() == Some(head.service()) || known.any(|known| trust.accepts(known)))
    }

    /// What is trusted.
    ///
    /// # Errors
    /// [`HomeError::NoTrust`], or a file that is not usable or that others could have written.
    pub fn trust(&self) -> Result<Trust, HomeError> {
        files::check_directory(&self.path)?;
        let path = self.path.join(TRUST);
        let bytes = match files::read_own(&path, TRUST_BYTES_MAX) {
            Err(error) if error.is_missing() => return Err(HomeError::NoTrust { path }),
            bytes => bytes?,
        };
        Trust::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|error| HomeError::Trust { path, error })
    }

    /// Keeps the key of a package, durably, before the package is used. Never replaces another key.
    ///
    /// # Errors
    /// The file cannot be written, or is there.
    pub fn keep_package_key(&self, package: Digest, key: &PackageKey) -> Result<(), HomeError> {
        let path = self.package_key_path(package);
        self.make()?;
        files::make_private_directory(&self.path.join(PACKAGES))?;
        Ok(files::write(&path, &to_hex(key.seed()), Write::SecretOnce)?)
    }

    /// The key of a package.
    ///
    /// # Errors
    /// [`HomeError::NoPackageKey`], or a file that is no key or that others can read.
    pub fn package_key(&self, package: Digest) -> Result<PackageKey, HomeError> {
        files::check_directory(&self.path)?;
        let path = self.package_key_path(package);
        match read_key(&path) {
            Err(HomeError::File(error)) if error.is_missing() => {
                Err(HomeError::NoPackageKey { package, path })
            }
            seed => Ok(PackageKey::from_seed(seed?)),
        }
    }

    /// Where the key of a package is kept.
    #[must_use]
    pub fn package_key_path(&self, package: Digest) -> PathBuf {
        self.path.join(PACKAGES).join(format!("{package}.key"))
    }

    /// Keeps a package's sealed head: its file's bytes up to the first chunk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_package_head(&self, package: Digest, head: &[u8]) -> Result<(), HomeError> {
        let directory = self.path.join(PACKAGES);
        files::make_private_directory(&directory)?;
        Ok(files::write(
            &directory.join(format!("{package}.head")),
            head,
            Write::Public,
        )?)
    }

    /// Where a package's head is kept, if it is.
    #[must_use]
    pub fn package_head_path(&self, package: Digest) -> PathBuf {
        self.path.join(PACKAGES).join(format!("{package}.head"))
    }

    /// Packages that were packed in this home by `owner` under this name, of any version when none is given. Heads that
    /// cannot be read are passed over.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn packages_named(
        &self,
        owner: &Principal,
        name: &PackageName,
        version: Option<&PackageVersion>,
    ) -> Result<Vec<Digest>, HomeError> {
        let directory = self.path.join(PACKAGES);
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| FileError::io(&directory, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|error| FileError::io(&directory, error))?
                .path();
            if path.extension().is_none_or(|extension| extension != "head") {
                continue;
            }
            let Some(head) = std::fs::File::open(&path)
                .ok()
                .and_then(|mut file| PackageHead::read(&mut file).ok())
            else {
                continue;
            };
            let header = head.header();
            let version_fits = version.is_none_or(|version| header.version == *version);
            if header.owner == *owner && header.name == *name && version_fits {
                found.push(head.digest());
            }
        }
        Ok(found)
    }

    /// Keeps a receipt under the digest of its request; returns where.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_receipt(
        &self,
        request: Digest,
        bundle: &ReceiptBundle,
    ) -> Result<PathBuf, HomeError> {
        let directory = self.path.join(RECEIPTS);
        files::make_private_directory(&directory)?;
        let path = self.receipt_path(request);
        files::write(&path, &bundle.encode(), Write::Public)?;
        Ok(path)
    }

    /// Where the receipt of a request is kept, if it is.
    #[must_use]
    pub fn receipt_path(&self, request: Digest) -> PathBuf {
        self.path.join(RECEIPTS).join(format!("{request}.receipt"))
    }

    /// Remembers a key service whose evidence was verified, so that receipts can be checked offline.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember_service(&self, service: &KnownService) -> Result<(), HomeError> {
        let mut known = self.known_services()?;
        if known.last() == Some(service) {
            return Ok(());
        }
        known.retain(|other| other != service);
        known.push(service.clone());
        let newest = known.len().saturating_sub(KNOWN_SERVICES_MAX);
        let lines = known[newest..].iter();
        let text: String = lines
            .map(|known| {
                let protection = if known.simulated { SIMULATED } else { HARDWARE };
                format!("{} {} {protection}\n", known.principal, known.measurement)
            })
            .collect();
        self.make()?;
        Ok(files::write(
            &self.path.join(SERVICES),
            text.as_bytes(),
            Write::Secret,
        )?)
    }

    /// Key services whose evidence was verified from here, the latest last. Lines that do not say how
    /// the service was protected, as older versions wrote them, are left out.
    ///
    /// # Errors
    /// The file is there but cannot be used, or others can read (hence perhaps write) it.
    pub fn known_services(&self) -> Result<Vec<KnownService>, HomeError> {
        files::check_directory(&self.path)?;
        let path = self.path.join(SERVICES);
        let bytes = match files::read_secret(&path, SERVICES_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            bytes => bytes?,
        };
        let known = |line: &str| {
            let (principal, rest) = line.split_once(' ')?;
            let (measurement, protection) = rest.split_once(' ')?;
            let simulated = match protection {
                SIMULATED => true,
                HARDWARE => false,
                _ => return None,
            };
            Some(KnownService {
                principal: principal.parse().ok()?,
                measurement: measurement.to_owned(),
                simulated,
            })
        };
        Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(known)
            .collect())
    }

    /// The directory, made if missing, refused if others own or can change it.
    pub(crate) fn make(&self) -> Result<(), HomeError> {
        files::make_private_directory(&self.path)?;
        Ok(files::check_directory(&self.path)?)
    }
}

pub(crate) fn to_hex(seed: &Secret) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![b'\n'; KEY_DIGITS + 1]);
    // Encoding 32 bytes into 64 places cannot fail.
    let _ = hex::encode_to_slice(seed.expose(), &mut text[..KEY_DIGITS]);
    text
}

pub(crate) fn read_key(path: &Path) -> Result<Secret, HomeError> {
    let text = files::read_secret(path, KEY_DIGITS as u64 + 2)?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii_end(), &mut *seed).map_err(|_| HomeError::NotAKey {
        path: path.to_owned(),
    })?;
    Ok(Secret::from_bytes(*seed))
}

const IDENTITY: &str = "identity.key";
const TRUST: &str = "trust.toml";
const PACKAGES: &str = "packages";
const RECEIPTS: &str = "receipts";
const SERVICES: &str = "services";
const SIMULATED: &str = "simulated";
const HARDWARE: &str = "hardware";
const KEY_DIGITS: usize = 64;
/// A list of a thousand measurements takes 70 KiB.
const TRUST_BYTES_MAX: u64 = 1 << 20;
/// Services remembered: a developer starts a new one often, a user hardly ever.
const KNOWN_SERVICES_MAX: usize = 64;
const SERVICES_BYTES_MAX: u64 = 256 * KNOWN_SERVICES_MAX as u64;

#[cfg(test)]
mod tests;
