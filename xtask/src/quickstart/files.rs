//! What the host does to files: it finds, changes and exchanges them.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A file somewhere below `folder` whose name ends with `end`.
pub(super) fn find_file(folder: &Path, end: &str) -> Result<PathBuf> {
    walk(folder)
        .into_iter()
        .find(|path| path.is_file() && path.to_string_lossy().ends_with(end))
        .with_context(|| format!("no {end} below {}", folder.display()))
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

pub(super) fn flip_last_byte(path: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::End(-1))?;
    Ok(file.write_all(&[byte[0] ^ 1])?)
}

/// Copies a folder of files over another, in whose place it then stands.
pub(super) fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("clearing {}", to.display()))?;
    }
    for file in walk(from) {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(&file, &copy).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}
