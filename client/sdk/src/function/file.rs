//! `bield.toml`: what a function is called, how it is built, what it may use.
//!
//! ```toml
//! [function]
//! name    = "cart"
//! version = "0.1.0"
//! source  = "function.wasm"        # the component, beside this file
//! build   = "npm run build"        # what makes it (optional)
//! watch   = ["src", "wit"]         # what it is made from (optional)
//!
//! [limits]                         # of one request; each is optional
//! memory     = "64 MiB"
//! deadline   = "10 s"
//! host_calls = 1000000
//! output     = "4 MiB"
//! log        = "64 KiB"
//!
//! [[bucket]]
//! name        = "shop"
//! consistency = "linearizable"     # eventual, epoch
//! durability  = "local-sync"       # local, memory
//!
//! [[model]]
//! name    = "classify"             # what the function loads it by
//! package = "magika@1.1.0"         # digest, file, name or name@version of a package of the same owner
//! ```
//!
//! Always true: unknown keys are refused, so a misspelt limit never becomes no limit; errors name the line.

use std::path::{Path, PathBuf};
use std::process::Command;

use bield_package::{
    BucketSpec, Consistency, Durability, FunctionLimits, PackageName, PackageVersion,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::FileError;
use crate::files;

/// What the file is called.
pub const FUNCTION_FILE: &str = "bield.toml";

/// A function as its author describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionFile {
    /// What the package is called.
    pub name: PackageName,
    /// Which edition it is.
    pub version: PackageVersion,
    /// Where the component is, from the file's directory.
    pub source: PathBuf,
    /// The command that makes it, for a shell in that directory.
    pub build: Option<String>,
    /// Files and directories that it is made from.
    pub watch: Vec<PathBuf>,
    /// What one request may use.
    pub limits: FunctionLimits,
    /// Buckets it may open.
    pub buckets: Vec<BucketSpec>,
    /// Models it may load.
    pub models: Vec<NamedPackage>,
}

/// A model as the file names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPackage {
    /// What the function loads it by.
    pub name: String,
    /// The package: digest, file, name or name@version.
    pub package: String,
}

/// The file is not usable. The function's author corrects it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionFileError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not such a file; the text says in which line.
    #[error("{path}: {error}", path = .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        error: toml::de::Error,
    },
    /// The component is not there.
    #[error("{path} is missing: {next}", path = .path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
        /// What makes it.
        next: String,
    },
    /// There is nothing in the component's file.
    #[error("{path} is empty: what should have made it did not, or did not end; build it again", path = .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The build command failed; what it said went to where this program's own words go.
    #[error("`{command}` failed ({how}): see what it said above")]
    Build {
        /// The command.
        command: String,
        /// How it ended.
        how: String,
    },
}

impl FunctionFile {
    /// Reads the file at `path`, or the one of that name in the directory `path`; also says in which directory it is.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub fn read(path: &Path) -> Result<(Self, PathBuf), FunctionFileError> {
        let path = match path.is_dir() {
            true => path.join(FUNCTION_FILE),
            false => path.to_owned(),
        };
        let bytes = files::read(&path, FILE_BYTES_MAX)?;
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        match Self::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(file) => Ok((file, directory)),
            Err(error) => Err(FunctionFileError::Parse { path, error }),
        }
    }

    /// Reads such a file's text.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let Fields {
            function,
            limits,
            bucket,
            model,
        } = toml::from_str(text)?;
        let usual = FunctionLimits::default();
        let bytes = |given: Option<Bytes>, usual| given.map_or(usual, |bytes| bytes.0);
        let limits = FunctionLimits {
            memory_bytes: bytes(limits.memory, usual.memory_bytes),
            deadline_ms: limits.deadline.map_or(usual.deadline_ms, |time| time.0),
            host_calls: limits.host_calls.unwrap_or(usual.host_calls),
            output_bytes: bytes(limits.output, usual.output_bytes),
            log_bytes: bytes(limits.log, usual.log_bytes),
        };
        limits.check().map_err(|limit| {
            toml::de::Error::custom(format!(
                "[limits]: {limit} is 0, or more than any function may have"
            ))
        })?;
        let buckets = bucket.into_iter().map(|bucket| BucketSpec {
            name: bucket.name,
            consistency: bucket.consistency.into(),
            durability: bucket.durability.into(),
        });
        Ok(Self {
            name: function.name.0,
            version: function.version.0,
            source: function.source,
            build: function.build,
            watch: function.watch,
            limits,
            buckets: buckets.collect(),
            models: model,
        })
    }

    /// The build command, for a shell in `directory`; `None` when there is none. Whoever runs it says where its words go.
    #[must_use]
    pub fn build_command(&self, directory: &Path) -> Option<Command> {
        let command = self.build.as_ref()?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command);
        if !directory.as_os_str().is_empty() {
            shell.current_dir(directory);
        }
        Some(shell)
    }

    /// Reads the component from `directory`.
    ///
    /// # Errors
    /// It was not built, cannot be read, or has more than 256 MiB.
    pub fn component(&self, directory: &Path) -> Result<Vec<u8>, FunctionFileError> {
        let path = directory.join(&self.source);
        match files::read(&path, COMPONENT_BYTES_MAX) {
            Err(error) if error.is_missing() => {
                let next = match &self.build {
                    Some(command) => format!("`{command}` makes it; or repeat this with --build"),
                    None => "build it, or correct `source` in bield.toml".to_owned(),
                };
                Err(FunctionFileError::NotBuilt { path, next })
            }
            Ok(bytes) if bytes.is_empty() => Err(FunctionFileError::Empty { path }),
            bytes => Ok(bytes?),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    function: Function,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    bucket: Vec<Bucket>,
    #[serde(default)]
    model: Vec<NamedPackage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: Parsed<PackageName>,
    version: Parsed<PackageVersion>,
    source: PathBuf,
    build: Option<String>,
    #[serde(default)]
    watch: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Limits {
    memory: Option<Bytes>,
    deadline: Option<Millis>,
    host_calls: Option<u64>,
    output: Option<Bytes>,
    log: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    name: String,
    consistency: ConsistencyName,
    durability: DurabilityName,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConsistencyName {
    Eventual,
    Epoch,
    Linearizable,
}

impl From<ConsistencyName> for Consistency {
    fn from(name: ConsistencyName) -> Self {
        match name {
            ConsistencyName::Eventual => Self::Eventual,
            ConsistencyName::Epoch => Self::Epoch,
            ConsistencyName::Linearizable => Self::Linearizable,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DurabilityName {
    Memory,
    Local,
    LocalSync,
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Memory => Self::Memory,
            DurabilityName::Local => Self::Local,
            DurabilityName::LocalSync => Self::LocalSync,
        }
    }
}

/// Something that is written as text.
struct Parsed<T>(T);

impl<'de, T: std::str::FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A size such as `64 MiB`.
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let units = [
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
        ];
        measured(&text, &units).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no size: write it as \"64 MiB\" (B, KiB, MiB, GiB)"
            ))
        })
    }
}

/// A time such as `10 s`, in milliseconds.
struct Millis(u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let units = [("ms", 1), ("s", 1000), ("min", 60_000)];
        measured(&text, &units).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no time: write it as \"10 s\" (ms, s, min)"
            ))
        })
    }
}

/// A whole number and a unit, with or without a space between them.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, of) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*of)
}

/// A file of a thousand buckets takes 100 KiB, and there may be 32.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Python with its standard library makes 40 MiB.
const COMPONENT_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = r#"
[function]
name = "cart"
version = "0.1.0"
source = "function.wasm"
build = "npm run build"
watch = ["src"]

[limits]
memory = "16MiB"
deadline = "500 ms"

[[bucket]]
name = "shop"
consistency = "linearizable"
durability = "local-sync"

[[model]]
name = "classify"
package = "magika@1.1.0"
"#;

    #[test]
    fn a_function_is_described_and_what_it_does_not_say_is_usual() {
        let file = FunctionFile::parse(CART).unwrap();
        assert_eq!(
            (file.name.as_str(), file.version.as_str()),
            ("cart", "0.1.0")
        );
        assert_eq!(file.limits.memory_bytes, 16 << 20);
        assert_eq!(file.limits.deadline_ms, 500);
        assert_eq!(file.limits.log_bytes, FunctionLimits::default().log_bytes);
        assert_eq!(file.buckets[0].consistency, Consistency::Linearizable);
        assert_eq!(file.buckets[0].durability, Durability::LocalSync);
        assert_eq!(file.models[0].package, "magika@1.1.0");
        let bare = "[function]\nname = \"a\"\nversion = \"1\"\nsource = \"a.wasm\"\n";
        let bare = FunctionFile::parse(bare).unwrap();
        assert_eq!((bare.buckets.len(), bare.build), (0, None));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (from, to, line) in [
            ("memory = \"16MiB\"", "memory = \"16 MB\"", "line 10"),
            ("memory = \"16MiB\"", "memroy = \"16 MiB\"", "line 10"),
            ("deadline = \"500 ms\"", "deadline = 500", "line 11"),
            (
                "deadline = \"500 ms\"",
                "deadline = \"half a s\"",
                "line 11",
            ),
            ("name = \"cart\"", "name = \"Cart\"", "line 3"),
            ("\"linearizable\"", "\"strong\"", "line 15"),
            ("durability = \"local-sync\"\n", "", "line 13"),
            (
                "package = \"magika@1.1.0\"",
                "packages = \"magika\"",
                "line 20",
            ),
        ] {
            let text = CART.replacen(from, to, 1);
            assert_ne!(text, CART, "{from}");
            let error = FunctionFile::parse(&text).unwrap_err().to_string();
            assert!(error.contains(line), "{to}: {error}");
        }
        for beyond in ["\"0 ms\"", "\"11 min\"", "\"99999999999999999999 s\""] {
            let text = CART.replacen("\"500 ms\"", beyond, 1);
            assert!(FunctionFile::parse(&text).is_err(), "{beyond}");
        }
    }

    #[test]
    fn a_component_that_was_not_built_is_built_by_its_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FUNCTION_FILE);
        let text = CART.replacen("npm run build", "printf made > function.wasm", 1);
        std::fs::write(&path, text).unwrap();
        let (file, at) = FunctionFile::read(directory.path()).unwrap();
        assert_eq!(
            FunctionFile::read(&path).unwrap(),
            (file.clone(), at.clone())
        );
        let refused = file.component(&at).unwrap_err().to_string();
        assert!(refused.contains("printf made > function.wasm"), "{refused}");
        std::fs::write(at.join("function.wasm"), "").unwrap();
        let refused = file.component(&at).unwrap_err().to_string();
        assert!(refused.contains("function.wasm is empty"), "{refused}");
        let mut build = file.build_command(&at).unwrap();
        assert!(build.status().unwrap().success());
        assert_eq!(file.component(&at).unwrap(), b"made");
        let finished = FunctionFile {
            build: None,
            ..file
        };
        assert!(finished.build_command(&at).is_none());
    }
}
