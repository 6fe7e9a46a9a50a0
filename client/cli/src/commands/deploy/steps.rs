//! From a function's folder to a function that can be called, step by step.
//!
//! ```text
//! folder ─▶ packed with these contents before, and stored? ─▶ else: seal, upload
//!        ─▶ registered? ─▶ else: its key to the key service
//!        ─▶ granted for long enough? ─▶ else: a grant for each user and code
//! ```
//!
//! In: a [`Folder`], who may call it, in which code. Out: [`Deployed`]. Always true: a step that is done is not done again;
//! the key is in the home before the package leaves it; a version that stands for other contents is refused before
//! anything is sent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bield_envelope::{Digest, SigningKey, Time, Verified};
use bield_grant::{CodeSelector, Grant, UserSelector};
use bield_package::{FunctionSpec, ManifestDraft, PackageHead, PackageVersion};
use bield_protocol::service::PackageRow;
use bield_sdk::{Gateway, Home, ListedGrant, Stored, Trust, now};
use serde_json::{Value, json};

use super::granting::{holds, selector, sign};
use crate::commands::folder::Folder;
use crate::commands::grant;
use crate::commands::pack::{at, seal};
use crate::commands::{key_service, plain};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Who deploys, and where.
pub(in crate::commands) struct Steps<'a> {
    pub(in crate::commands) home: &'a Home,
    pub(in crate::commands) trust: &'a Trust,
    pub(in crate::commands) identity: &'a SigningKey,
    pub(in crate::commands) output: Output,
}

/// What the version is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Called {
    /// As in `bield.toml`; other contents under that version are refused.
    AsWritten,
    /// `VERSION-dev.N`, with the next number; the contents of the newest version are not deployed again.
    Numbered,
}

/// What is there now.
pub(in crate::commands) struct Deployed {
    pub(in crate::commands) package: Digest,
    pub(in crate::commands) name: String,
    pub(in crate::commands) version: PackageVersion,
    /// Whether anything was packed now.
    pub(in crate::commands) packed: bool,
    pub(in crate::commands) simulated: bool,
    uploaded: bool,
    registered: bool,
    granted: Vec<Verified<Grant>>,
    granted_before: usize,
}

impl Deployed {
    pub(in crate::commands) fn to_json(&self) -> Value {
        json!({
            "package": self.package.to_string(),
            "name": self.name,
            "version": self.version.as_str(),
            "packed": self.packed,
            "uploaded": self.uploaded,
            "registered": self.registered,
            "grants": self.granted.iter().map(grant::show).collect::<Vec<_>>(),
            "granted_before": self.granted_before,
            "simulated": self.simulated,
        })
    }
}

/// A package that lies sealed somewhere.
struct There {
    head: PackageHead,
    packed: bool,
    uploaded: bool,
}

impl Steps<'_> {
    /// Deploys the folder: every user is granted every code, until then.
    pub(in crate::commands) fn deploy(
        &self,
        folder: &Folder,
        called: Called,
        users: &[UserSelector],
        codes: &[CodeSelector],
        until: Time,
    ) -> Result<Deployed, Failure> {
        // A session does not wait for a large upload: one before, one after.
        let mut service = key_service(self.home, self.trust)?;
        self.home.remember_service(&service.known())?;
        let (principal, simulated) = (service.principal(), service.appraised().simulated());
        service.register(self.identity)?;
        let rows = service.packages(self.identity)?;
        service.close()?;
        check_models(folder, &rows)?;

        let state = folder.state(self.home, self.identity, || Ok(principal))?;
        let mut draft = folder.draft(state.as_ref())?;
        let same = self.same_contents(&draft, &rows, called)?;
        if called == Called::Numbered {
            draft.version = match same.first() {
                Some(head) => head.header().version.clone(),
                None => self.next_version(&draft, &rows)?,
            };
        }
        let (name, version) = (draft.name.clone(), draft.version.clone());
        let there = self.bring(folder, draft, same)?;
        let package = there.head.digest();

        let mut service = key_service(self.home, self.trust)?;
        let registered = !rows.iter().any(|row| row.package == package);
        if registered {
            let key = self.home.package_key(package)?;
            let header = there.head.signed_header().clone();
            service.put_package(self.identity, header, Vec::new(), Vec::new(), &key)?;
            self.output
                .step("registered", "its key is at the key service");
        } else {
            self.output.step("registered", "already");
        }
        let selector = selector(package, &name, &version);
        let listed = service.grants(self.identity, None, None)?;
        let (mut granted, mut granted_before) = (Vec::new(), 0);
        for (user, code) in users
            .iter()
            .flat_map(|user| codes.iter().map(move |code| (user, code)))
        {
            let holds = |one: &ListedGrant| holds(&one.grant, &selector, user, code, now(), until);
            if listed.iter().any(holds) {
                granted_before += 1;
                self.output
                    .step("granted", format_args!("already: {selector} to {user}"));
                continue;
            }
            let grant = sign(self.identity, &selector, user, code, until);
            service.grant(self.identity, &grant)?;
            let words = grant::line(&grant);
            self.output
                .step("granted", format_args!("{selector} {}", words.trim_start()));
            granted.push(grant);
        }
        service.close()?;
        Ok(Deployed {
            package,
            name: name.as_str().to_owned(),
            version,
            packed: there.packed,
            simulated,
            uploaded: there.uploaded,
            registered,
            granted,
            granted_before,
        })
    }

    /// Packages of this home with the contents of `draft`, newest first: under its version, or, where versions are
    /// numbered, the newest that the key service has.
    fn same_contents(
        &self,
        draft: &ManifestDraft,
        rows: &[PackageRow],
        called: Called,
    ) -> Result<Vec<PackageHead>, Failure> {
        let mut rows: Vec<&PackageRow> = rows
            .iter()
            .filter(|row| row.name == draft.name.as_str())
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        match called {
            Called::AsWritten => rows.retain(|row| row.version == draft.version.as_str()),
            Called::Numbered => rows.truncate(1),
        }
        let mut found = Vec::new();
        for row in rows {
            match compared(self.home, row.package, draft) {
                Compared::Same(head) => found.push(*head),
                Compared::Other if called == Called::AsWritten => {
                    return Err(Failure::local(format_args!(
                        "{}@{} was deployed before with other contents ({}): give this one another `version` in \
                         bield.toml",
                        draft.name, draft.version, row.package
                    )));
                }
                Compared::OtherState | Compared::Other => {}
            }
        }
        Ok(found)
    }

    /// The next number: larger than those of the key service and of this home.
    fn next_version(
        &self,
        draft: &ManifestDraft,
        rows: &[PackageRow],
    ) -> Result<PackageVersion, Failure> {
        let begin = format!("{}{NUMBERED}", draft.version);
        let number = |version: &str| version.strip_prefix(&begin)?.parse::<u64>().ok();
        let there = rows
            .iter()
            .filter(|row| row.name == draft.name.as_str())
            .filter_map(|row| number(&row.version));
        let here = self
            .home
            .packages_named(&self.identity.principal(), &draft.name, None)?;
        let here = here.into_iter().filter_map(|package| {
            let head = head(self.home, package)?;
            number(head.header().version.as_str())
        });
        let next = there.chain(here).max().unwrap_or(0) + 1;
        format!("{begin}{next}").parse().map_err(|error| {
            Failure::local(format_args!(
                "version {begin}{next}: {error}; shorten it in bield.toml"
            ))
        })
    }

    /// The sealed package, at the gateway: the one that is there, or a new one.
    fn bring(
        &self,
        folder: &Folder,
        draft: ManifestDraft,
        same: Vec<PackageHead>,
    ) -> Result<There, Failure> {
        let gateway = Gateway::new(self.trust.gateway());
        let label = format!("{}@{}", draft.name, draft.version);
        for head in same {
            if gateway.has_package(head.digest(), head.package_bytes())? {
                self.output.step(
                    "packed",
                    format_args!("already: {label} ({})", head.digest()),
                );
                self.output.step("uploaded", "already");
                return Ok(There {
                    head,
                    packed: false,
                    uploaded: false,
                });
            }
        }
        let sealed = Sealed::at(self.home.path(), &label);
        let (identity, component) = (self.identity, &folder.component);
        let (summary, _) = seal(self.home, identity, component, draft, &sealed.0)?;
        let (package, bytes) = (summary.digest, summary.package_bytes);
        self.output
            .step("packed", format_args!("{label} ({package}, {bytes} bytes)"));
        let mut file = File::open(&sealed.0).map_err(|error| at(&sealed.0, error))?;
        let bar = progress::bytes("uploading");
        let stored = gateway.put_package(package, &mut file, bytes, &mut progress::advance(&bar));
        bar.finish_and_clear();
        let uploaded = stored? == Stored::Uploaded;
        self.output
            .step("uploaded", format_args!("to {}", gateway.url()));
        let head = head(self.home, package);
        let head = head.ok_or_else(|| at(&self.home.package_head_path(package), "not readable"))?;
        Ok(There {
            head,
            packed: true,
            uploaded,
        })
    }
}

/// A sealed file on its way: once the gateway has it, nobody needs this one.
struct Sealed(PathBuf);

impl Sealed {
    /// Of this process alone: another one may deploy the same.
    fn at(home: &Path, label: &str) -> Self {
        Self(home.join(format!("{label}.{}.bield", std::process::id())))
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // Not there when sealing failed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Says before anything is sent what the function would miss when it is called.
fn check_models(folder: &Folder, rows: &[PackageRow]) -> Result<(), Failure> {
    let missing = folder
        .models
        .iter()
        .find(|model| !rows.iter().any(|row| row.package == model.package));
    match missing {
        None => Ok(()),
        Some(model) => Err(Failure::local(format_args!(
            "model {}: the key service has no package {} of yours; `bield push` and `bield grant` it to whoever calls the \
             function, then deploy",
            plain(&model.name),
            model.package
        ))),
    }
}

/// A package beside what would be packed now.
enum Compared {
    Same(Box<PackageHead>),
    /// All that its author wrote is the same; the state has been opened to another key service since.
    OtherState,
    /// Or nobody here can tell.
    Other,
}

/// Compares a package that was packed in this home, whatever its version.
fn compared(home: &Home, package: Digest, draft: &ManifestDraft) -> Compared {
    match (packed(home, package), &draft.function) {
        (Some(packed), Some(draft)) if is_same(&packed, draft) => {
            match (is_same_state(&packed, draft), head(home, package)) {
                (true, Some(head)) => Compared::Same(Box::new(head)),
                _ => Compared::OtherState,
            }
        }
        _ => Compared::Other,
    }
}

fn head(home: &Home, package: Digest) -> Option<PackageHead> {
    let mut file = File::open(home.package_head_path(package)).ok()?;
    PackageHead::read(&mut file).ok()
}

/// Whether the version of a package of this home was numbered here.
pub(in crate::commands) fn is_numbered(home: &Home, package: Digest) -> bool {
    let Some(head) = head(home, package) else {
        return false;
    };
    let version = head.header().version.as_str();
    let number = version.rsplit_once(NUMBERED).map(|(_, number)| number);
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn packed(home: &Home, package: Digest) -> Option<FunctionSpec> {
    let key = home.package_key(package).ok()?;
    let open = head(home, package)?.open_manifest(&key).ok()?;
    open.into_manifest().function
}

fn is_same(one: &FunctionSpec, other: &FunctionSpec) -> bool {
    one.component == other.component
        && one.limits == other.limits
        && one.buckets == other.buckets
        && one.models == other.models
}

fn is_same_state(one: &FunctionSpec, other: &FunctionSpec) -> bool {
    let state = |spec: &FunctionSpec| {
        let state = spec.state.as_ref()?;
        // The keys follow from the metadata: a home has one state of a name.
        let config: Vec<Vec<u8>> = state.config.iter().map(|record| record.to_vec()).collect();
        Some((state.metadata.clone(), config))
    };
    state(one) == state(other)
}

/// Between a version and its number.
const NUMBERED: &str = "-dev.";
