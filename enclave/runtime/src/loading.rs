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
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bield_door::{DoorError, Offers, Visit};
use bield_engine::{Engine, Model, Rows, load_checked, load_checked_apart, load_checked_while};
use bield_envelope::{Digest, Principal};
use bield_package::{Manifest, ModelFormat, OpenPackage, PackageError, PackageHead};
use bield_platform::memory;
use bield_protocol::refusal::{Refusal, Retry};
use zeroize::Zeroize as _;

use crate::batches::Trial;
use crate::flights::lock;
use crate::keys::Keys;
use crate::models::{Loaded, Models, Space};
use crate::refusals;
use crate::turns::Turns;

mod counted;
mod unfit;

use counted::Counted;
pub(crate) use unfit::Unfit;

/// How long to wait for the host to offer to serve a package.
const OFFER_WAIT: Duration = Duration::from_secs(10);

/// How long all reads of a package may take together, beside [`READ_BYTES_PER_SECOND`].
const READ_WAIT: Duration = Duration::from_secs(30);

/// What a host must serve on average: a disk does a hundred times that, and others wait for the same model.
const READ_BYTES_PER_SECOND: u64 = 1 << 20;

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

/// A source that fails as soon as it is not wanted any more.
struct Wanted {
    source: Source,
    goes_on: GoesOn,
}

impl Read for Wanted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match (self.goes_on)() {
            true => self.source.read(out),
            false => Err(io::Error::other("it is not wanted any more")),
        }
    }
}

/// A source that fails when it is slow: when all reads together took longer than `wait` and what they gave takes at a rate.
struct Paced {
    source: Source,
    wait: Duration,
    bytes_per_second: u64,
    /// In reads; what happens between them is no fault of the source.
    spent: Duration,
    bytes: u64,
}

impl Paced {
    fn new(source: Source, wait: Duration, bytes_per_second: u64) -> Self {
        Self {
            source,
            wait,
            bytes_per_second,
            spent: Duration::ZERO,
            bytes: 0,
        }
    }
}

impl Read for Paced {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let read = self.source.read(out)?;
        self.spent += started.elapsed();
        self.bytes += read as u64;
        let earned = self.bytes.saturating_mul(1000) / self.bytes_per_second;
        if self.spent > self.wait + Duration::from_millis(earned) {
            let slow = "the host served the package too slowly";
            return Err(io::Error::new(io::ErrorKind::TimedOut, slow));
        }
        Ok(read)
    }
}

/// Opens all chunks on `threads` threads; the first bad chunk decides.
fn open_model(
    package: &OpenPackage,
    source: Source,
    region: &mut [u8],
    threads: usize,
) -> Result<(), PackageError> {
    let chunk_bytes = package.header().chunk_bytes as usize;
    let belt = Mutex::new(Belt {
        package,
        source,
        due: (0..package.chunk_count()).zip(region.chunks_mut(chunk_bytes)),
        failed: None,
    });
    let work = || {
        let mut sealed = Vec::new();
        loop {
            let Some((index, out)) = lock(&belt).next(&mut sealed) else {
                return;
            };
            if let Err(error) = package.open_chunk(index, &sealed, out) {
                lock(&belt).fail(index, error);
                return;
            }
        }
    };
    let helpers = threads
        .min(package.chunk_count() as usize)
        .saturating_sub(1);
    thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(work);
        }
        work();
    });
    let Belt {
        mut source, failed, ..
    } = belt
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, error)) = failed {
        return Err(error);
    }
    match source.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(PackageError::Trailing),
        Err(error) => Err(PackageError::Io(error)),
    }
}

/// Hands out chunks in order: sealed bytes from the source, and their place in the region.
struct Belt<'p, D> {
    package: &'p OpenPackage,
    source: Source,
    due: D,
    failed: Option<(u32, PackageError)>,
}

impl<'r, D: Iterator<Item = (u32, &'r mut [u8])>> Belt<'_, D> {
    /// Reads the next chunk into `sealed`; `None` at the end or after a failure.
    fn next(&mut self, sealed: &mut Vec<u8>) -> Option<(u32, &'r mut [u8])> {
        if self.failed.is_some() {
            return None;
        }
        let (index, out) = self.due.next()?;
        let place = self.package.chunk(index)?.sealed;
        sealed.resize(usize::try_from(place.end - place.start).ok()?, 0);
        if let Err(error) = self.source.read_exact(sealed) {
            let count = self.package.chunk_count();
            let error = match error.kind() {
                io::ErrorKind::UnexpectedEof => PackageError::Truncated { index, count },
                _ => PackageError::Io(error),
            };
            self.fail(index, error);
            return None;
        }
        Some((index, out))
    }
}

impl<D> Belt<'_, D> {
    /// Notes a failure; the one of the lowest chunk is told, whichever thread was first.
    fn fail(&mut self, index: u32, error: PackageError) {
        if self.failed.as_ref().is_none_or(|(at, _)| index < *at) {
            self.failed = Some((index, error));
        }
    }
}

/// Zeroes in a way that the compiler keeps although nobody reads the bytes again.
fn wipe(region: &mut [u8]) {
    region.zeroize();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cast, Shelf};

    fn opened(bytes: Vec<u8>, threads: usize) -> Result<Vec<u8>, PackageError> {
        let cast = Cast::new();
        let mut source = io::Cursor::new(bytes);
        let package = PackageHead::read(&mut source)?.open_manifest(&cast.package_key())?;
        let mut region = vec![0; package.model_bytes() as usize];
        let done = open_model(&package, Box::new(source), &mut region, threads);
        done.map(|()| region)
    }

    #[test]
    fn a_source_that_drips_is_given_up_and_a_quick_one_is_read_to_its_end() {
        struct Drips(u32);
        impl Read for Drips {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                thread::sleep(Duration::from_millis(1));
                self.0 += 1;
                out[0] = 0;
                Ok(usize::from(self.0 < 10_000))
            }
        }
        let mut read = Vec::new();
        // A byte a millisecond is a thousandth of what is asked for.
        let mut slow = Paced::new(Box::new(Drips(0)), Duration::from_millis(5), 1 << 20);
        let given_up = slow.read_to_end(&mut read).unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        let quick = vec![1; 4 << 20];
        let source = Box::new(io::Cursor::new(quick.clone()));
        let mut paced = Paced::new(source, READ_WAIT, READ_BYTES_PER_SECOND);
        read.clear();
        paced.read_to_end(&mut read).unwrap();
        assert!(read == quick);
    }

    #[test]
    fn a_wiped_region_holds_nothing() {
        let mut region = vec![7; 4096];
        wipe(&mut region);
        assert!(region.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_number_of_threads_opens_the_same_model() {
        let shelf = Shelf::stocked();
        for threads in [1, 2, 7] {
            let model = opened(shelf.bytes.clone(), threads).unwrap();
            assert!(model == bield_fixtures::tiny_model());
        }
    }

    #[test]
    fn the_first_bad_chunk_is_named_whoever_opens_it() {
        let shelf = Shelf::stocked();
        let (count, at) = (shelf.chunks(), shelf.offset_of_chunk(1));
        for threads in [1, 2, 7] {
            let mut bytes = shelf.bytes.clone();
            bytes[at + 20] ^= 1;
            *bytes.last_mut().unwrap() ^= 1;
            let error = opened(bytes, threads).unwrap_err();
            let want = PackageError::ChunkAltered { index: 1, count };
            assert_eq!(error.to_string(), want.to_string());
        }
    }

    #[test]
    fn a_package_that_ends_early_or_goes_on_is_refused() {
        let shelf = Shelf::stocked();
        let mut short = shelf.bytes.clone();
        short.pop();
        assert!(matches!(
            opened(short, 3),
            Err(PackageError::Truncated { .. })
        ));
        let mut long = shelf.bytes.clone();
        long.push(0);
        assert!(matches!(opened(long, 3), Err(PackageError::Trailing)));
    }
}
