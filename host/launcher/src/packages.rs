//! Serves sealed packages from a directory.
//!
//! The file name is made of the digest's hexadecimal form and nothing else, so a program can name no other
//! file. Links, pipes and devices are not served.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bield_envelope::Digest;
use rustix::fs::OFlags;

use crate::record::Pipe;

/// Answers one package visit whose first byte is already here.
pub(crate) fn serve(mut visit: Pipe, first: u8, directory: &Path) -> io::Result<()> {
    let mut digest = [first; 32];
    visit.read_exact(&mut digest[1..])?;
    let digest = Digest::from_bytes(digest);
    match open(directory, &digest) {
        Ok((mut file, length)) => {
            visit.write_all(&length.to_be_bytes())?;
            visit.send_file(&mut file)
        }
        Err(error) => {
            tracing::warn!(package = digest.short(), %error, "package not served");
            visit.write_all(&0u64.to_be_bytes())
        }
    }
}

fn open(directory: &Path, digest: &Digest) -> io::Result<(File, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(directory.join(format!("{digest}.bield")))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, metadata.len()))
}
