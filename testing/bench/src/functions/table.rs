//! A state as a runtime holds it.
//!
//! ```text
//! guest ─▶ TableWorld ─▶ bield_state::Request ─▶ table, log ─▶ files of a real folder
//! ```
//!
//! Always true: the log is sealed, signed and written beside the requests; the bucket is linearizable and promises
//! memory only, so nobody waits for a disk.

use std::path::Path;

use anyhow::Result;
use bield_state::{Bucket, Change, Consistency, Durability, Settings, State};

use crate::table::files::Folder;
use crate::table::place::{Disk, Place};
use crate::world::{Left, TableWorld};

/// Keys and values that are there from the begin, as many as the paper's benchmark has.
pub(super) const RECORDS: u32 = 2000;

/// A state that serves; its folder goes away with it.
pub(super) struct Table {
    state: State,
    buckets: Vec<Bucket>,
}

impl Table {
    /// Makes a state with these buckets, and fills the first of them.
    pub(super) fn open(folder: &Path, names: &[&str]) -> Result<Self> {
        let buckets: Vec<Bucket> = names.iter().map(|name| bucket(name)).collect();
        let place = Place::on(Disk::Folder(Folder::new(folder)?), Settings::default())?;
        let state = place.open_for(&[], &buckets)?;
        let table = Self { state, buckets };
        let keys: Vec<String> = (0..RECORDS).map(key).collect();
        let mut request = table.state.request(&[])?;
        for keys in keys.chunks(100) {
            let sets = keys.iter().map(|key| Change::Set {
                key: key.as_bytes(),
                value: VALUE,
                expires: None,
            });
            request.write(&table.buckets[0], &sets.collect::<Vec<_>>())?;
        }
        request.finish()?;
        Ok(table)
    }

    /// Begins a request; its world, and what is left of it when its guest is gone.
    pub(super) fn begin(&self) -> Result<(Box<TableWorld>, Left)> {
        TableWorld::begin(&self.state, &self.buckets)
    }
}

/// Key number `number`, as the guest in `calls.wat` spells it.
pub(super) fn key(number: u32) -> String {
    let digit = |shift: u32| char::from(b'0' + (number >> shift & 31) as u8);
    match number >> 10 {
        0 => format!("k0{}{}", digit(5), digit(0)),
        more => format!("k{more}{}{}", digit(5), digit(0)),
    }
}

fn bucket(name: &str) -> Bucket {
    Bucket {
        name: name.to_owned(),
        consistency: Consistency::Linearizable,
        durability: Durability::Memory,
    }
}

const VALUE: &[u8] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_ones_that_the_guest_asks_for() {
        assert_eq!(key(0), "k000");
        assert_eq!(key(33), "k011");
        assert_eq!(key(1023), "k0OO");
        assert_eq!(key(1024), "k100");
    }
}
