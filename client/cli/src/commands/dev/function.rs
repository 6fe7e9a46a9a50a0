//! A function under development: built and deployed when its files change, its log shown.
//!
//! ```text
//! files ─ changed? ─▶ build ─▶ deploy as VERSION-dev.N ─▶ the last but one is deleted
//!                       └ fails: said, and the version before stays
//! log ─▶ lines on the terminal
//! ```
//!
//! Always true: the state stays through all versions; a home whose trust somebody else wrote is not changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bield_envelope::SigningKey;
use bield_grant::UserSelector;
use bield_sdk::{
    FUNCTION_FILE, Home, HomeError, PackageReference, Randomness, Trust, TrustConfig, now,
};
use serde_json::json;

use super::stop::{Event, Events};
use super::watch::Watch;
use crate::commands::build::{self, Built};
use crate::commands::deploy::steps::{Called, Deployed, Steps, is_numbered};
use crate::commands::folder::{Folder, described};
use crate::commands::logs::{self, LogReader};
use crate::commands::{call, key_service};
use crate::failure::Failure;
use crate::output::Output;

/// A function that is built and deployed as long as this is asked to.
pub(super) struct Development<'a> {
    home: &'a Home,
    output: Output,
    events: &'a Events,
    path: PathBuf,
    identity: SigningKey,
    trust: Trust,
    /// What this command keeps: sealed packages, states and compiled code are below.
    dir: PathBuf,
    watch: Watch,
    looked: Instant,
    is_deployed: bool,
    /// Whether the log is being read; told of every new version.
    log: Option<Arc<AtomicBool>>,
}

impl<'a> Development<'a> {
    /// Deploys the function for the first time; a failure is said, and the next change tried.
    pub(super) fn begin(
        home: &'a Home,
        output: Output,
        events: &'a Events,
        path: &Path,
        trust_file: &Path,
        dir: PathBuf,
    ) -> Result<Self, Failure> {
        let (identity, trust) = settle(home, trust_file)?;
        let mut this = Self {
            home,
            output,
            events,
            path: path.to_owned(),
            identity,
            trust,
            dir,
            watch: Watch::new(watched(path)),
            looked: Instant::now(),
            is_deployed: false,
            log: None,
        };
        this.deploy();
        Ok(this)
    }

    /// Looks whether files changed, if it is time to; builds and deploys them if so.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        if self.watch.changed() {
            self.deploy();
        }
        self.looked = Instant::now();
    }

    fn deploy(&mut self) {
        let begun = Instant::now();
        match self.try_deploy() {
            Ok(Some(deployed)) => self.announce(&deployed, begun.elapsed()),
            // Nobody waits for it any more.
            Ok(None) => {}
            Err(failure) => {
                if self.output.is_json() {
                    self.output.show(&failure.to_json(), "");
                }
                let stays = match self.is_deployed {
                    true => "the version before stays",
                    false => "nothing is deployed yet",
                };
                self.output.note(format_args!(
                    "failed: {}\n{stays}; waiting for a change",
                    failure.message()
                ));
            }
        }
    }

    /// `None` when told to stop meanwhile.
    fn try_deploy(&mut self) -> Result<Option<Deployed>, Failure> {
        self.watch.follow(watched(&self.path));
        let (file, directory) = described(&self.path)?;
        let stop = |wait| matches!(self.events.wait(wait), Event::Stop);
        if build::beside(&file, &directory, self.output, stop)? == Built::Stopped {
            return Ok(None);
        }
        let owner = self.identity.principal();
        let folder = Folder::read(self.home, &owner, &self.path)?;
        let steps = Steps {
            home: self.home,
            trust: &self.trust,
            identity: &self.identity,
            // In one line instead: it happens again and again.
            output: self.output.quiet(),
        };
        let (me, codes) = (UserSelector::Principal(owner), call::trusted(&self.trust));
        let until = now().plus(GRANTED);
        let deployed = steps.deploy(&folder, Called::Numbered, &[me], &codes, until)?;
        self.is_deployed = true;
        // Should that fail, they lie there and nobody calls them.
        let _ = self.forget_old(&deployed.name);
        self.read_log(&deployed.name);
        Ok(Some(deployed))
    }

    /// Deletes the numbered versions that nobody calls any more: all but the newest, and the one before, in whose name a
    /// runtime lets the state go.
    fn forget_old(&self, name: &str) -> Result<(), Failure> {
        let mut service = key_service(self.home, &self.trust)?;
        let mut rows = service.packages(&self.identity)?;
        rows.retain(|row| row.name == name);
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        for row in rows.iter().skip(KEPT) {
            // Others were deployed by hand.
            if !is_numbered(self.home, row.package) {
                continue;
            }
            service.delete_package(&self.identity, row.package)?;
            // Where it is not, there is nothing to do.
            let _ = std::fs::remove_file(self.dir.join(format!("packages/{}.bield", row.package)));
        }
        forget_code(&self.dir.join("state"));
        Ok(service.close()?)
    }

    fn announce(&self, deployed: &Deployed, took: Duration) {
        let (name, version) = (&deployed.name, &deployed.version);
        let mut value = deployed.to_json();
        value["deployed"] = true.into();
        let what = match deployed.packed {
            true => format!("deployed in {:.1} s", took.as_secs_f64()),
            false => "as it was deployed before".to_owned(),
        };
        self.output.show(
            &value,
            format_args!("{name}@{version} {what}: bield call {name} --path /"),
        );
    }

    /// Shows the log from now on, in a thread that ends with this program.
    fn read_log(&mut self, name: &str) {
        if let Some(log) = &self.log {
            log.store(true, Ordering::Relaxed);
            return;
        }
        let changed = Arc::new(AtomicBool::new(false));
        self.log = Some(Arc::clone(&changed));
        let (home, output) = (Home::at(self.home.path()), self.output);
        let package = PackageReference::Named(self.identity.principal(), name.to_owned(), None);
        thread::spawn(move || {
            let (Ok(identity), Ok(trust)) = (home.identity(), home.trust()) else {
                return;
            };
            let codes = call::trusted(&trust);
            let mut log = LogReader::new(&home, &trust, &identity, package, codes);
            loop {
                if changed.swap(false, Ordering::Relaxed) {
                    log.look_again();
                }
                match log.read() {
                    Ok(lines) => lines.iter().for_each(|line| {
                        output.show(&json!({ "log": line.to_json() }), line);
                    }),
                    // A version that is going, or a runtime that starts: the next read tells.
                    Err(_) => log.look_again(),
                }
                thread::sleep(logs::PAUSE);
            }
        });
    }
}

/// What is looked at: `bield.toml`, and what it says the function is made from, or else what is made.
fn watched(path: &Path) -> Vec<PathBuf> {
    let (settings, directory) = match path.is_dir() {
        true => (path.join(FUNCTION_FILE), path.to_owned()),
        false => (
            path.to_owned(),
            path.parent().map(Path::to_owned).unwrap_or_default(),
        ),
    };
    let mut paths = vec![settings];
    if let Ok((file, _)) = described(path) {
        match file.watch.is_empty() {
            true => paths.push(directory.join(&file.source)),
            false => paths.extend(file.watch.iter().map(|path| directory.join(path))),
        }
    }
    paths
}

/// An identity, and trust in this deployment in which the identity's own names need no owner.
fn settle(home: &Home, trust_file: &Path) -> Result<(SigningKey, Trust), Failure> {
    let identity = match home.create_identity(&mut Randomness) {
        Err(HomeError::IdentityExists { .. }) => home.identity()?,
        made => made?,
    };
    let mut config: TrustConfig = toml::from_str(&read(trust_file)?).map_err(Failure::local)?;
    config.owner = Some(identity.principal().to_string());
    let text = super::deployment::trust_text(&config)?;
    let trust = match own_trust(home)? {
        None => home.create_trust(&text)?,
        Some(before) if before == text => home.trust()?,
        Some(_) => home.replace_trust(&text)?,
    };
    Ok((identity, trust))
}

/// The trust that this command wrote into a home before, if there is any.
///
/// # Errors
/// Somebody else wrote it: it is not replaced.
pub(super) fn own_trust(home: &Home) -> Result<Option<String>, Failure> {
    let path = home.path().join("trust.toml");
    if !path.exists() {
        return Ok(None);
    }
    let text = read(&path)?;
    match super::deployment::is_own_trust(&text) {
        true => Ok(Some(text)),
        false => Err(Failure::local(format_args!(
            "{} trusts something that `bield dev` did not write: choose another home with --home",
            path.display()
        ))),
    }
}

/// Deletes all but the newest files of sealed code in a runtime's directory; their names say nothing to who is not the
/// runtime. What is missed is compiled anew.
fn forget_code(state: &Path) {
    let Ok(entries) = std::fs::read_dir(state) else {
        return;
    };
    let is_code = |name: &str| name.starts_with("code-") && name != "code-uses";
    let code = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_code));
    let mut by_age: Vec<_> = code
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    by_age.sort_unstable_by(|one, other| other.cmp(one));
    for (_, path) in by_age.into_iter().skip(CODE_KEPT) {
        let _ = std::fs::remove_file(path);
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))
}

/// Versions that stay.
const KEPT: usize = 2;
/// Files of native code that stay: a component in Python is one of 33 MB.
const CODE_KEPT: usize = 8;
/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a development version may be called.
const GRANTED: Duration = Duration::from_secs(30 * 86_400);
