//! A caller of one state: requests, and calls within them.
//!
//! Always true: what is read is checked, and that it is there; a request's end is awaited.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bield_state::{Bucket, Change, Handle, PageLimits, Request, State, SwapOutcome};

use super::Effort;
use super::draw::{Draw, key};
use super::timed::{Took, closed, nothing, slice};

/// Keys in the table.
pub(super) const KEYS: u64 = 100_000;
/// Calls of a window, and puts between two ends of a request.
pub(super) const CALLS: usize = 1000;
/// Bytes of value.
pub(super) const VALUES: [usize; 2] = [16, 100];

/// A caller of one state.
pub(super) struct Calls<'s> {
    state: &'s State,
    bucket: Bucket,
    value: Vec<u8>,
    draw: Draw,
    /// The request under way.
    request: Option<Request>,
    /// Calls of the last loop.
    pub(super) made: u64,
}

impl<'s> Calls<'s> {
    pub(super) fn new(state: &'s State, bucket: Bucket, value: usize) -> Result<Self> {
        Ok(Self {
            state,
            bucket,
            value: vec![b'v'; value],
            draw: Draw::new(1),
            request: Some(state.request(&[])?),
            made: 0,
        })
    }

    /// Puts all keys once.
    pub(super) fn fill(&mut self, keys: u64) -> Result<()> {
        for number in 0..keys {
            self.put_key(number)?;
            if number % CALLS as u64 == 0 {
                self.end()?;
            }
        }
        self.end()
    }

    /// So many puts of keys below `keys`, evenly drawn.
    pub(super) fn fill_drawn(&mut self, keys: u64, puts: u64) -> Result<()> {
        for number in 0..puts {
            let drawn = self.draw.below(keys);
            self.put_key(drawn)?;
            if number % CALLS as u64 == 0 {
                self.end()?;
            }
        }
        self.end()
    }

    /// Reads all keys once.
    pub(super) fn sweep(&mut self) -> Result<()> {
        (0..KEYS).try_for_each(|number| self.get_key(number))
    }

    pub(super) fn get(&mut self, effort: &Effort) -> Result<Took> {
        self.made = 0;
        closed(self, effort.span(), CALLS, Self::get_one, nothing)
    }

    /// Gets a second of one slice.
    pub(super) fn gets(&mut self, span: Duration) -> Result<f64> {
        slice(self, span, CALLS, Self::get_one, nothing)
    }

    pub(super) fn put(&mut self, effort: &Effort) -> Result<Took> {
        closed(self, effort.span(), CALLS, Self::put_one, Self::end)
    }

    /// Puts a second of one slice.
    pub(super) fn puts(&mut self, span: Duration) -> Result<f64> {
        slice(self, span, CALLS, Self::put_one, Self::end)
    }

    /// So many puts.
    pub(super) fn put_many(&mut self, count: u64) -> Result<u64> {
        (0..count).try_for_each(|_| self.put_one())?;
        Ok(count)
    }

    pub(super) fn page(&mut self, effort: &Effort) -> Result<Took> {
        closed(self, effort.span(), CALLS / 50, Self::page_one, nothing)
    }

    pub(super) fn whole_requests(&mut self, effort: &Effort) -> Result<Took> {
        closed(
            self,
            effort.span(),
            CALLS / 50,
            Self::request_of_a_put,
            nothing,
        )
    }

    pub(super) fn whole_reads(&mut self, effort: &Effort) -> Result<Took> {
        closed(
            self,
            effort.span(),
            CALLS / 50,
            Self::request_of_a_get,
            nothing,
        )
    }

    pub(super) fn swap(&mut self, effort: &Effort) -> Result<Took> {
        closed(self, effort.span(), CALLS, Self::swap_one, Self::end)
    }

    pub(super) fn increment(&mut self, effort: &Effort) -> Result<Took> {
        closed(self, effort.span(), CALLS, Self::increment_one, Self::end)
    }

    fn get_one(&mut self) -> Result<()> {
        self.made += 1;
        let number = self.draw.below(KEYS);
        self.get_key(number)
    }

    fn put_one(&mut self) -> Result<()> {
        let number = self.draw.below(KEYS);
        self.put_key(number)
    }

    fn page_one(&mut self) -> Result<()> {
        let limits = PageLimits {
            keys: 100,
            bytes: 1 << 20,
        };
        let from = key(self.draw.below(KEYS - 200));
        let request = self.request.as_mut().context("a request is under way")?;
        let page = request.list(&self.bucket, Some(&from), limits)?;
        ensure!(page.entries.len() == 100, "a page is not full");
        black_box(page);
        Ok(())
    }

    pub(super) fn request_of_a_put(&mut self) -> Result<()> {
        self.request = Some(self.state.request(&[])?);
        self.put_one()?;
        self.finish()
    }

    pub(super) fn request_of_a_get(&mut self) -> Result<()> {
        self.request = Some(self.state.request(&[])?);
        self.get_one()?;
        self.finish()
    }

    fn swap_one(&mut self) -> Result<()> {
        let key = key(self.draw.below(KEYS));
        let request = self.request.as_mut().context("a request is under way")?;
        let found = request.get(&self.bucket, &key)?;
        let seen = Handle::of(found.as_ref());
        let change = Change::Set {
            key: &key,
            value: &self.value,
            expires: None,
        };
        let outcome = request.swap(&self.bucket, change, seen)?;
        ensure!(matches!(outcome, SwapOutcome::Done), "nobody else writes");
        Ok(())
    }

    fn increment_one(&mut self) -> Result<()> {
        let key = key(self.draw.below(KEYS));
        let request = self.request.as_mut().context("a request is under way")?;
        black_box(request.increment(&self.bucket, &key, 1)?);
        Ok(())
    }

    /// Puts a number under every key.
    pub(super) fn number(&mut self) -> Result<()> {
        let value = core::mem::replace(&mut self.value, b"0".to_vec());
        self.fill(KEYS)?;
        self.value = value;
        Ok(())
    }

    /// Reads a key that is there.
    pub(super) fn get_key(&mut self, number: u64) -> Result<()> {
        let request = self.request.as_mut().context("a request is under way")?;
        let found = request.get(&self.bucket, &key(number))?;
        let found = found.context("a key has no value")?;
        ensure!(found.value.len() == self.value.len(), "another value");
        black_box(found);
        Ok(())
    }

    /// Writes a key.
    pub(super) fn put_key(&mut self, number: u64) -> Result<()> {
        let request = self.request.as_mut().context("a request is under way")?;
        let change = Change::Set {
            key: &key(number),
            value: &self.value,
            expires: None,
        };
        Ok(request.write(&self.bucket, &[change])?)
    }

    /// Ends the request, waits for what it wrote, and begins the next.
    pub(super) fn end(&mut self) -> Result<()> {
        self.finish()?;
        self.request = Some(self.state.request(&[])?);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let request = self.request.take().context("a request is under way")?;
        black_box(request.finish()?);
        Ok(())
    }
}
