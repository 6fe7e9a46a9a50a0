//! The chunks of a package, opened into one region by many threads while the source is read by one at a time.
//!
//! Always true: a chunk is opened from private memory that no host can change meanwhile; of several bad chunks the lowest is
//! told; what follows the last chunk is refused. Not here: who zeroes the region of a package that did not open (`loading`).

use std::io::{self, Read as _};
use std::sync::Mutex;
use std::thread;

use bield_package::{OpenPackage, PackageError};
use zeroize::Zeroize as _;

use super::Source;
use crate::flights::lock;

/// Opens all chunks on `threads` threads; the first bad chunk decides.
pub(super) fn open_model(
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
pub(super) fn wipe(region: &mut [u8]) {
    region.zeroize();
}

#[cfg(test)]
mod tests {
    use bield_package::PackageHead;

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
