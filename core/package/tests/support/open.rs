//! How the tests open a package.

use bield_package::{OpenPackage, PackageError, PackageHead, PackageKey};

/// Opens the head and manifest of `file`.
pub(crate) fn open_head(file: &[u8], key: &PackageKey) -> Result<OpenPackage, PackageError> {
    PackageHead::read(&mut &*file)?.open_manifest(key)
}

/// Opens all of `file`; on failure the region must be empty.
pub(crate) fn open(file: &[u8], key: &PackageKey) -> Result<Vec<u8>, PackageError> {
    let mut source = file;
    let package = PackageHead::read(&mut source)?.open_manifest(key)?;
    let mut region = vec![0xaa; package.model_bytes() as usize];
    package
        .open_model(&mut source, &mut region, &mut |_, _| {})
        .inspect_err(|_| {
            assert!(region.iter().all(|byte| *byte == 0), "plaintext remained");
        })?;
    Ok(region)
}
