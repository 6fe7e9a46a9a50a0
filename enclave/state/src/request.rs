//! One request's view of the state: reads and writes between two cuts.
//!
//! ```text
//! begin ─▶ heads before ─▶ get, write, swap, … ─▶ finish: waits for what it read and wrote ─▶ heads after
//! ```
//!
//! In: operations on buckets whose consistency and durability the function's manifest declares. Out: values,
//! and [`Cut`]. Always true: a request reads what it wrote, at once; changes of one write become visible
//! together; compare-and-swap and increment happen one at a time for a key; when `finish` returns, everything
//! that the request wrote, and everything that it read from a linearizable bucket, is as durable as the bucket
//! declares, stands before `after` in the log, and was so while the hold lasted. Nothing may be told of a
//! request whose `finish` failed. The mark of a request ([`Request::mark`]) is in the log with its first change: a state
//! has both or neither, whenever its machine ends.
//!
//! Buckets that read at epochs are read like eventual ones: there is one writer, whose commits are seen whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bield_capsule::{Batch, Head, QueueError, Ticket};
use bield_envelope::Time;
use bield_table::{
    Consistency, Found, Handle, Keys, Op, Page, PageLimits, Swapped, TableError, bucket_range,
    full_key,
};

use crate::state::Shared;
use crate::{Durability, StateError};

/// A part of the keys, and what is promised of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What a read shows.
    pub consistency: Consistency,
    /// How safe a write is when its request ends.
    pub durability: Durability,
}

/// Where the state stood before and after a request, each ascending by writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Everything that the request may have read when it began is behind these.
    pub before: Vec<Head>,
    /// Everything that the request read or wrote is behind these.
    ///
    /// The newest record of the own chain here is a durable one where all of that is durable, else one that is written where
    /// all is; so somebody who reads and writes what is durable is shown no record that a loss of power takes.
    pub after: Vec<Head>,
}

/// One of the changes of a write.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// Sets a value.
    Set {
        /// Its key in the bucket.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// From then on nothing is there.
        expires: Option<Time>,
    },
    /// Leaves nothing under a key.
    Delete {
        /// Its key in the bucket.
        key: &'a [u8],
    },
}

impl<'a> Change<'a> {
    const fn key(&self) -> &'a [u8] {
        match self {
            Self::Set { key, .. } | Self::Delete { key } => key,
        }
    }

    /// As the table takes it, under the full key.
    const fn op<'o>(&self, key: &'o [u8]) -> Op<'o>
    where
        'a: 'o,
    {
        match *self {
            Self::Set { value, expires, .. } => Op::Put {
                key,
                value,
                expires,
            },
            Self::Delete { .. } => Op::Delete { key },
        }
    }
}

/// What a compare-and-swap came to.
pub enum SwapOutcome {
    /// It was written.
    Done,
    /// Somebody had written before; this is what is there now.
    Changed(Option<Found>),
}

/// A request under way.
pub struct Request {
    shared: Arc<Shared>,
    now: Time,
    before: Vec<Head>,
    /// The last entry that was written, or seen in a linearizable bucket, and how safe it has to be.
    last: Ticket,
    wanted: Durability,
    /// The last entry that may have been read.
    seen: Ticket,
    mark: Option<Mark>,
}

/// What comes with the first change of a request.
struct Mark {
    /// Its full key.
    key: Vec<u8>,
    expires: Time,
}

impl Mark {
    fn op(&self) -> Op<'_> {
        Op::Put {
            key: &self.key,
            value: &[],
            expires: Some(self.expires),
        }
    }
}

impl Shared {
    pub(crate) fn request(self: &Arc<Self>, seen: &[Head]) -> Result<Request, StateError> {
        self.writing.held()?;
        self.contains(seen)?;
        Ok(Request {
            shared: Arc::clone(self),
            now: self.writing.clocks.now(),
            before: self.heads(),
            last: Ticket::default(),
            wanted: Durability::Memory,
            seen: Ticket::default(),
            mark: None,
        })
    }
}

impl Request {
    /// Has the first change of this request leave an empty value under a key, until `expires`, in the same write; a
    /// request that changes nothing leaves none. The bucket is not linearizable.
    ///
    /// # Errors
    /// A key beyond a bound.
    pub fn mark(&mut self, bucket: &str, key: &[u8], expires: Time) -> Result<(), StateError> {
        let key = full_key(bucket, key)?;
        self.mark = Some(Mark { key, expires });
        Ok(())
    }

    /// The value under a key.
    ///
    /// # Errors
    /// A key beyond a bound; a run that cannot be read.
    pub fn get(&mut self, bucket: &Bucket, key: &[u8]) -> Result<Option<Found>, StateError> {
        let full = full_key(&bucket.name, key)?;
        let found = self.shared.table.get(&full, shown(bucket), self.now)?;
        self.saw(bucket);
        Ok(found)
    }

    /// Whether there is a value under a key.
    ///
    /// # Errors
    /// As [`Request::get`].
    pub fn exists(&mut self, bucket: &Bucket, key: &[u8]) -> Result<bool, StateError> {
        let full = full_key(&bucket.name, key)?;
        let exists = self.shared.table.exists(&full, shown(bucket), self.now)?;
        self.saw(bucket);
        Ok(exists)
    }

    /// As [`list`](Request::list), without the values.
    ///
    /// # Errors
    /// As [`Request::get`].
    pub fn list_keys(
        &mut self,
        bucket: &Bucket,
        after: Option<&[u8]>,
        limits: PageLimits,
    ) -> Result<Keys, StateError> {
        let (from, to) = bucket_range(&bucket.name)?;
        let after = after
            .map(|after| full_key(&bucket.name, after))
            .transpose()?;
        let table = &self.shared.table;
        let range = (&from[..], &to[..]);
        let mut page = table.keys(range, after.as_deref(), limits, shown(bucket), self.now)?;
        let strip = |key: &mut Vec<u8>| drop(key.drain(..from.len()));
        page.keys.iter_mut().chain(&mut page.after).for_each(strip);
        self.saw(bucket);
        Ok(page)
    }

    /// Keys of the bucket and their values, ascending, after a key of it; the keys come without the
    /// bucket's name.
    ///
    /// # Errors
    /// As [`Request::get`].
    pub fn list(
        &mut self,
        bucket: &Bucket,
        after: Option<&[u8]>,
        limits: PageLimits,
    ) -> Result<Page, StateError> {
        let (from, to) = bucket_range(&bucket.name)?;
        let after = after
            .map(|after| full_key(&bucket.name, after))
            .transpose()?;
        let table = &self.shared.table;
        let range = (&from[..], &to[..]);
        let mut page = table.page(range, after.as_deref(), limits, shown(bucket), self.now)?;
        let strip = |key: &mut Vec<u8>| drop(key.drain(..from.len()));
        page.entries.iter_mut().for_each(|(key, _)| strip(key));
        page.after.iter_mut().for_each(strip);
        self.saw(bucket);
        Ok(page)
    }

    /// Makes changes that become visible together, and are in the log together.
    ///
    /// # Errors
    /// A bound; the log stopped; memory stays full. Nothing was changed then, or, where the log stopped, may
    /// or may not have been.
    pub fn write(&mut self, bucket: &Bucket, changes: &[Change<'_>]) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        if let [change] = changes {
            let key = full_key(&bucket.name, change.key())?;
            return self.ops(bucket, &[change.op(&key)]);
        }
        let full = |change: &Change<'_>| full_key(&bucket.name, change.key());
        let keys = changes.iter().map(full).collect::<Result<Vec<_>, _>>()?;
        let ops: Vec<Op<'_>> = changes
            .iter()
            .zip(&keys)
            .map(|(change, key)| change.op(key))
            .collect();
        self.ops(bucket, &ops)
    }

    /// Deletes everything from one key to another, exclusive; of buckets that are not linearizable.
    ///
    /// # Errors
    /// As [`Request::write`].
    pub fn delete_range(
        &mut self,
        bucket: &Bucket,
        from: &[u8],
        to: &[u8],
    ) -> Result<(), StateError> {
        let from = full_key(&bucket.name, from)?;
        let to = full_key(&bucket.name, to)?;
        let (from, to) = (&from[..], &to[..]);
        self.ops(bucket, &[Op::DeleteRange { from, to }])
    }

    /// Writes a key if it is as it was seen; of linearizable buckets.
    ///
    /// # Errors
    /// The bucket is not linearizable; or as [`Request::write`].
    pub fn swap(
        &mut self,
        bucket: &Bucket,
        change: Change<'_>,
        seen: Handle,
    ) -> Result<SwapOutcome, StateError> {
        let key = full_key(&bucket.name, change.key())?;
        let op = change.op(&key);
        let (shared, now) = (&*self.shared, self.now);
        let mark = self.mark.as_ref().map(Mark::op);
        let buckets = self.pushes(bucket);
        let swapped = shared.handed(buckets, |hand| {
            shared.table.swap_beside(op, mark, seen, now, hand)
        })?;
        match swapped {
            Swapped::Done(written) => {
                self.wrote(bucket, written.handed);
                Ok(SwapOutcome::Done)
            }
            Swapped::Changed(found) => {
                self.saw(bucket);
                Ok(SwapOutcome::Changed(found))
            }
        }
    }

    /// Adds to the number under a key, and returns the sum; of linearizable buckets.
    ///
    /// # Errors
    /// The bucket is not linearizable; what is there is no number; or as [`Request::write`].
    pub fn increment(
        &mut self,
        bucket: &Bucket,
        key: &[u8],
        delta: i64,
    ) -> Result<i64, StateError> {
        let key = full_key(&bucket.name, key)?;
        let (shared, now) = (&*self.shared, self.now);
        let mark = self.mark.as_ref().map(Mark::op);
        let increment = |hand: &mut dyn FnMut(&Batch) -> Result<Ticket, QueueError>| {
            shared.table.increment_beside(&key, delta, mark, now, hand)
        };
        let summed = shared.handed(self.pushes(bucket), increment)?;
        self.wrote(bucket, summed.1.handed);
        Ok(summed.0)
    }

    /// Ends the request: waits until what it wrote and saw is as safe as its buckets declare.
    ///
    /// # Errors
    /// The log stopped, or the hold is over: nothing may be told of the request.
    pub fn finish(mut self) -> Result<Cut, StateError> {
        let writing = &self.shared.writing;
        // What was read may have been written a moment ago by another request.
        writing.wait_signed(writing.last())?;
        writing.wait(self.last, self.wanted)?;
        let after = self.shared.heads_with(self.last.max(self.seen));
        writing.runs()?;
        writing.held()?;
        // What was signed when the request began may not be durable, and the request saw nothing of it.
        let is_ahead = |head: &Head| {
            after
                .iter()
                .any(|own| own.writer == head.writer && own.seq < head.seq)
        };
        if self.before.iter().any(is_ahead) {
            self.before.clone_from(&after);
        }
        Ok(Cut {
            before: core::mem::take(&mut self.before),
            after,
        })
    }

    fn ops(&mut self, bucket: &Bucket, ops: &[Op<'_>]) -> Result<(), StateError> {
        let (shared, now) = (&*self.shared, self.now);
        let marked: Vec<Op<'_>>;
        let ops = match &self.mark {
            Some(mark) => {
                marked = [mark.op()].into_iter().chain(ops.iter().copied()).collect();
                &marked
            }
            None => ops,
        };
        let written = shared.handed(self.pushes(bucket), |hand| {
            shared.table.write(ops, now, hand)
        })?;
        self.wrote(bucket, written.handed);
        Ok(())
    }

    fn wrote(&mut self, bucket: &Bucket, ticket: Ticket) {
        self.mark = None;
        self.last = self.last.max(ticket);
        self.wanted = self.wanted.max(bucket.durability);
        self.shared.writing.want(ticket, bucket.durability);
    }

    /// As what a write to a bucket is read: the mark may be in any other.
    const fn pushes(&self, bucket: &Bucket) -> &'static [Durability] {
        match (&self.mark, bucket.durability) {
            (None, Durability::Memory) => &[Durability::Memory],
            (None, Durability::Local) => &[Durability::Local],
            (None, Durability::LocalSync) => &[Durability::LocalSync],
            (Some(_), _) => &[Durability::Memory, Durability::Local, Durability::LocalSync],
        }
    }

    /// A linearizable read shows what will not be lost.
    fn saw(&mut self, bucket: &Bucket) {
        let pushed = &self.shared.pushed[bucket.durability as usize];
        let seen = Ticket::new(pushed.load(Ordering::Acquire));
        self.seen = self.seen.max(seen);
        if bucket.consistency == Consistency::Linearizable {
            self.last = self.last.max(self.shared.writing.last());
            self.wanted = self.wanted.max(bucket.durability);
        }
    }
}

/// What a request that ends otherwise wrote stands in the log soon, too: others see it.
impl Drop for Request {
    fn drop(&mut self) {
        self.shared.writing.ask(self.last);
    }
}

impl Shared {
    /// Runs a write of the table, whose entries go to the log; again where the log had no room just then.
    pub(crate) fn handed<T>(
        &self,
        pushes: &[Durability],
        write: impl FnMut(&mut dyn FnMut(&Batch) -> Result<Ticket, QueueError>) -> Result<T, TableError>,
    ) -> Result<T, StateError> {
        self.handed_when(Self::admit, pushes, write)
    }

    /// The same, once `admit` lets it.
    pub(crate) fn handed_when<T>(
        &self,
        admit: impl Fn(&Self) -> Result<(), StateError>,
        pushes: &[Durability],
        mut write: impl FnMut(
            &mut dyn FnMut(&Batch) -> Result<Ticket, QueueError>,
        ) -> Result<T, TableError>,
    ) -> Result<T, StateError> {
        loop {
            self.writing.held()?;
            admit(self)?;
            let mut refused = None;
            let written = write(&mut |batch| {
                let pushed = self.writing.push(batch);
                refused = pushed.as_ref().err().cloned();
                // Before anybody sees it.
                for (durability, ticket) in pushes.iter().zip(pushed.iter().cycle()) {
                    let last = &self.pushed[*durability as usize];
                    last.fetch_max(ticket.position(), Ordering::AcqRel);
                }
                pushed
            });
            match (written, refused) {
                (Ok(written), _) => return Ok(written),
                // Not within the table's lock, which the signer needs as well.
                (Err(_), Some(QueueError::Full)) => self.writing.wait_for_room()?,
                (Err(_), Some(error)) => return Err(crate::writing::stopped(error)),
                (Err(error), None) => return Err(error.into()),
            }
        }
    }
}

/// How a bucket is read.
fn shown(bucket: &Bucket) -> Consistency {
    match bucket.consistency {
        Consistency::Linearizable => Consistency::Linearizable,
        Consistency::Eventual | Consistency::Epoch => Consistency::Eventual,
    }
}
