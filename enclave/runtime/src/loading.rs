//! From a package that the host offers to a model that may serve.
//!
//! ```text
//! PackageSource ──▶ head: owner's signature ─▶ the package asked for? its owner's? ─▶ manifest: key
//!               ──▶ memory reserved ─▶ region: chunk by chunk on all threads ─▶ engine ─▶ golden pairs ─▶ Loaded
//! ```
//!
//! Where engines are tiered and memory for both is free, the first of them loads the model, and [`Loader::load_second`]
//! opens the package once more for the other. Both are counted alike (`Counted`). A package whose first engine failed is
//! loaded by the other alone from then on. Where requests may run together, the golden pairs also tell whether they do
//! (`batches`), in the same turn.
//!
//! Always true: no memory for the model is taken before its manifest was verified and the budget agreed; a region
//! with a bad chunk is zeroed and the refusal names the chunk; a model whose golden pairs differ never serves; a
//! sealed chunk is opened from private memory that no host can change meanwhile; nobody waits for memory with a package
//! of the host open, of which there are few; a host that serves one too slowly has served none.
//! Not here: the cache (`models`). On paper: bytes leave the source one thread at a time and are decrypted
//! while the next are read; memory is the model, 1 MiB per thread, and then the engine's copy. The model's region is a
//! mapping of its own, in huge pages where there are any, wiped and given back with the last use of it.

use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_door::{DoorError, Offers, Visit};
use bield_engine::{Engine, Model, Rows, load_checked, load_checked_apart, load_checked_while};
use bield_envelope::{Digest, Principal};
use bield_package::{Manifest, ModelFormat, OpenPackage, PackageError, PackageHead};
use bield_platform::memory;
use bield_protocol::refusal::{Refusal, Retry};

use crate::batches::Trial;
use crate::keys::Keys;
use crate::models::{Loaded, Models, Space};
use crate::refusals;
use crate::turns::Turns;

mod chunks;
mod counted;
mod sources;
mod unfit;

use chunks::{open_model, wipe};
use counted::Counted;
use sources::{Paced, Wanted};
pub(crate) use unfit::Unfit;

/// How long to wait for the host to offer to serve a package.
const OFFER_WAIT: Duration = Duration::from_secs(10);

/// How long all reads of a package may take together, beside [`READ_BYTES_PER_SECOND`].
const READ_WAIT: Duration = Duration::from_secs(30);

/// What a host must serve on average: a disk does a hundred times that, and others wait for the same model.
const READ_BYTES_PER_SECOND: u64 = 1 << 20;

/// Bytes of memory for each byte of a component: itself while it is compiled, and three times as much native code.
const CODE_PER_COMPONENT: u64 = 4;

/// The sealed bytes of a package, from where it was read to.
type Source = Box<dyn Read + Send>;

/// Where sealed packages come from.
pub(crate) trait PackageSource: Send + Sync {
    /// Starts reading a package; `None` when the source does not have it. The reader ends where the source
    /// says that the package ends.
    ///
    /// # Errors
    /// The source does not answer; [`io::ErrorKind::ResourceBusy`] when it serves as many as it can.
    fn fetch(&self, package: Digest) -> io::Result<Option<Box<dyn Read + Send>>>;
}

/// Packages that the host serves through offered visits.
pub(crate) struct HostPackages(pub(crate) Arc<Offers>);

impl PackageSource for HostPackages {
    fn fetch(&self, package: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        let taken = self.0.take(Visit::Package, OFFER_WAIT);
        let mut stream = taken.map_err(|error| match error {
            DoorError::NoOffer { .. } => io::Error::new(io::ErrorKind::ResourceBusy, error),
            error => io::Error::other(error),
        })?;
        stream.write_all(package.as_bytes())?;
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        Ok((length > 0).then(|| Box::new(stream.take(length)) as Box<dyn Read + Send>))
    }
}

/// What loading takes.
pub(crate) struct Loader {
    pub(crate) packages: Box<dyn PackageSource>,
    pub(crate) engine: Box<dyn Engine>,
    /// Threads that open chunks.
    pub(crate) threads: usize,
    /// Packages that the first of two engines failed to load.
    pub(crate) unfit: Unfit,
    /// Where requests may run together.
    pub(crate) trial: Option<Trial>,
}

/// Says whether a second tier is still wanted; asked while its package is read.
pub(crate) type GoesOn = Arc<dyn Fn() -> bool + Send + Sync>;

/// How long the two halves of a load took, and the wait for others before and between them.
#[derive(Default, Clone, Copy)]
pub(crate) struct LoadTimes {
    pub(crate) open: Duration,
    pub(crate) load: Duration,
    pub(crate) queue: Duration,
}

/// What is loaded, and for whom.
pub(crate) struct LoadFor<'a> {
    pub(crate) user: Principal,
    pub(crate) keys: &'a Keys,
    /// How long to wait for memory.
    pub(crate) wait: Duration,
    pub(crate) how: How,
}

/// Who may share what with the model that is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// All requests for it.
    Shared,
    /// The same, and another engine may answer first.
    Tiered,
    /// Nobody: nothing of it is left in the engine.
    Apart,
}

impl Loader {
    /// Opens the package that `keys` are for and loads its model.
    ///
    /// # Errors
    /// The codes of `refusals` for packages, memory and engines.
    pub(crate) fn load(
        &self,
        load: &LoadFor<'_>,
        models: &Arc<Models>,
        turns: &Turns,
        times: &mut LoadTimes,
    ) -> Result<Loaded, Refusal> {
        let &LoadFor {
            user,
            keys,
            wait,
            how,
        } = load;
        let started = Instant::now();
        let (mut package, mut source) = self.manifest(keys)?;
        let (format, bytes) = (package.manifest().format, package.model_bytes());
        let footprint = self.engine.footprint(format, bytes);
        let mut waited = Duration::ZERO;
        let space = match models.reserve(bytes, footprint.loading, Duration::ZERO) {
            Err(refusal) if refusal.retry == Retry::Anew => {
                // A few visits serve all packages, and the host gives one up that is not read.
                drop(source);
                let waiting = Instant::now();
                let space = models.reserve(bytes, footprint.loading, wait);
                waited = waiting.elapsed();
                times.queue += waited;
                let space = space?;
                (package, source) = self.manifest(keys)?;
                space
            }
            space => space?,
        };
        let mut counted = Counted::new(models, bytes, space);
        let region = self.open(&package, source, self.threads)?;
        let open = started.elapsed().saturating_sub(waited);
        times.open += open;

        let exact = self.engine.footprint_of(&region, format);
        counted.measure(exact)?;
        let first = match how {
            How::Tiered => self.first(package.digest(), &region, format, models),
            How::Shared | How::Apart => None,
        };
        let (engine, counted, second) = match first {
            Some((engine, own)) => (engine, own, Some(counted)),
            None => (&*self.engine, counted, None),
        };
        let waiting = Instant::now();
        // Not bounded: those who wait for the same model must not be refused for one user's wait.
        let turn = turns
            .take(user, Duration::MAX)
            .map_err(|_| refusals::late(wait))?;
        times.queue += waiting.elapsed();
        let started = Instant::now();
        let model = match how {
            How::Apart => load_checked_apart(engine, region, package.manifest()),
            How::Shared | How::Tiered => load_checked(engine, region, package.manifest()),
        };
        let rows = match (&model, how) {
            (Ok(model), How::Shared | How::Tiered) => {
                self.rows(&**model, package.manifest(), &|| true)
            }
            _ => Rows::Unproven,
        };
        drop(turn);
        times.load += started.elapsed();
        let is_first = second.is_some();
        if is_first && model.is_err() {
            self.unfit.note(package.digest());
        }
        let due = if is_first { exact.loading } else { 0 };
        let loaded = model
            .map_err(|error| refusals::load(&error))
            .and_then(|model| counted.keep(model, due, open + started.elapsed()));
        match loaded.inspect(|loaded| loaded.model.lane.settle(rows)) {
            // The engine that is chosen for it decides.
            Err(_) if is_first => {
                drop(second);
                let how = How::Shared;
                self.load(&LoadFor { how, ..*load }, models, turns, times)
            }
            loaded => loaded,
        }
    }

    /// The engine that answers for a model first, with memory for it beside that of the one that is chosen.
    fn first<'a>(
        &self,
        package: Digest,
        region: &[u8],
        format: ModelFormat,
        models: &'a Arc<Models>,
    ) -> Option<(&dyn Engine, Counted<'a>)> {
        if self.unfit.holds(package) {
            return None;
        }
        let engine = self.engine.first(region, format)?;
        let resident = engine.footprint_of(region, format).resident;
        let space = models.reserve_free(resident)?;
        let counted = Counted::new(models, region.len() as u64, space);
        // What it takes while it loads is less than the other, for which there is room meanwhile.
        Some((engine, counted.staying(resident)))
    }

    /// Loads the model once more, on the engine that is chosen for it, in memory that was set aside for that. Takes no turn
    /// and opens chunks on this one thread, to leave the others to requests; gives up between reads of the package, and
    /// between golden pairs, when `goes_on` says no.
    ///
    /// # Errors
    /// As [`load`](Self::load); any when it gave up.
    pub(crate) fn load_second(
        &self,
        keys: &Keys,
        models: &Arc<Models>,
        space: Space,
        goes_on: &GoesOn,
    ) -> Result<Loaded, Refusal> {
        let started = Instant::now();
        let (package, source) = self.manifest(keys)?;
        let format = package.manifest().format;
        let mut counted = Counted::new(models, package.model_bytes(), space);
        let wanted = Wanted {
            source,
            goes_on: Arc::clone(goes_on),
        };
        let region = self.open(&package, Box::new(wanted), 1)?;
        counted.measure(self.engine.footprint_of(&region, format))?;
        let manifest = package.manifest();
        let model = load_checked_while(&*self.engine, region, manifest, &**goes_on);
        let model = model.map_err(|error| refusals::load(&error))?;
        let model = model.ok_or_else(refusals::gone)?;
        let rows = self.rows(&*model, manifest, &**goes_on);
        if !goes_on() {
            return Err(refusals::gone());
        }
        let loaded = counted.keep(model, 0, started.elapsed())?;
        loaded.model.lane.settle(rows);
        Ok(loaded)
    }

    /// What the golden pairs tell of rows that run together, where requests may.
    fn rows(&self, model: &dyn Model, manifest: &Manifest, goes_on: &dyn Fn() -> bool) -> Rows {
        let trial = self.trial.as_ref();
        trial.map_or(Rows::Unproven, |trial| {
            trial.of(model, &manifest.golden, goes_on)
        })
    }

    /// Opens the package that `keys` are for as a function: its manifest, its component, and the memory that is set aside
    /// for its code.
    ///
    /// # Errors
    /// The codes of `refusals` for packages and memory.
    pub(crate) fn component(
        &self,
        keys: &Keys,
        models: &Arc<Models>,
        wait: Duration,
    ) -> Result<(Manifest, Vec<u8>, Space), Refusal> {
        let (package, source) = self.manifest(keys)?;
        drop(source);
        // Before anything is let go for it: whoever may call a model may call it as if it were a function.
        if package.manifest().format != ModelFormat::Component {
            return Err(crate::functions::no_function());
        }
        let bytes = package.model_bytes();
        let space = models.reserve(bytes, bytes.saturating_mul(CODE_PER_COMPONENT), wait)?;
        let (package, source) = self.manifest(keys)?;
        let component = self.open(&package, source, 1)?;
        Ok((package.into_manifest(), component, space))
    }

    /// Starts to read the package that `keys` are for.
    fn manifest(&self, keys: &Keys) -> Result<(OpenPackage, Source), Refusal> {
        let mut source = self.fetch(keys.lease.package)?;
        let head = PackageHead::read(&mut source).map_err(|error| refusals::package(&error))?;
        if head.digest() != keys.lease.package || head.header().owner != keys.lease.owner {
            return Err(foreign());
        }
        let opened = head.open_manifest(&keys.package);
        Ok((opened.map_err(|error| refusals::package(&error))?, source))
    }

    fn fetch(&self, package: Digest) -> Result<Source, Refusal> {
        match self.packages.fetch(package) {
            Ok(Some(source)) => {
                let paced = Paced::new(source, READ_WAIT, READ_BYTES_PER_SECOND);
                Ok(Box::new(paced))
            }
            Ok(None) => Err(missing(package)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(busy(package)),
            Err(error) => Err(refusals::package(&PackageError::Io(error))),
        }
    }

    fn open(
        &self,
        package: &OpenPackage,
        source: Source,
        threads: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let bytes = usize::try_from(package.model_bytes()).unwrap_or(usize::MAX);
        let mut region = memory::region(bytes).map_err(|error| refusals::no_memory(&error))?;
        match open_model(package, source, &mut region, threads) {
            Ok(()) => Ok(region),
            Err(error) => {
                wipe(&mut region);
                Err(refusals::package(&error))
            }
        }
    }
}

fn missing(package: Digest) -> Refusal {
    Refusal::new(
        "package-missing",
        format_args!(
            "the host does not have package {package}; its operator must put the package there"
        ),
        Retry::AfterChange,
    )
}

fn busy(package: Digest) -> Refusal {
    Refusal::new(
        "packages-busy",
        format_args!(
            "the host serves as many packages as it can at once, and package {package} was not among them within {} s; \
             seal the request anew in a moment",
            OFFER_WAIT.as_secs()
        ),
        Retry::Anew,
    )
}

fn foreign() -> Refusal {
    Refusal::new(
        "package-foreign",
        "the host served another package than was asked for; its operator must look",
        Retry::AfterChange,
    )
}
