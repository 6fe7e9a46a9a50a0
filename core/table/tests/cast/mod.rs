//! A capsule with several writers, their tables, and a network that the test decides over.

mod store;

use std::collections::BTreeMap;

use std::sync::Arc;

use bield_capsule::{
    Applied, Batch, CapsuleName, Change, Clock, GenerationKey, Head, KeyRing, Metadata, Received,
    Suite, Verifier, VerifierPolicy, Writer, WriterId, WriterKey,
};
use bield_envelope::{Secret, Seeded, Time};
use bield_levels::OwnedCell;
use bield_table::{
    Action, ApplyError, Change as TableChange, Cold, Consistency, Leases, NoCold, Op, Options,
    Table, TableEntry, TableError, Taken, Written,
};
use rand_core::Rng;
use store::Store;

pub(crate) fn at(millis: u64) -> Time {
    Time::from_millis(1_800_000_000_000 + millis)
}

/// Everything that was written, and everybody who wrote.
pub(crate) struct World {
    pub(crate) verifier: Verifier,
    pub(crate) keys: KeyRing,
    pub(crate) generation: GenerationKey,
    pub(crate) draw: Draw,
    pub(crate) members: Vec<Member>,
}

/// A writer, its table, and how far it has applied each chain.
pub(crate) struct Member {
    pub(crate) id: WriterId,
    pub(crate) writer: Writer,
    pub(crate) table: Table,
    /// Entries that were handed on and not sealed.
    pub(crate) pending: Batch,
    /// The same, for the model.
    pub(crate) payloads: Vec<Vec<u8>>,
    /// Payloads of each record of the chain, for the model.
    pub(crate) sealed: Vec<Vec<Vec<u8>>>,
    pub(crate) chain: Vec<Received>,
    /// Records applied of each member's chain.
    pub(crate) applied: Vec<usize>,
    pub(crate) options: Options,
    pub(crate) cold: Arc<dyn Cold>,
    pub(crate) store: Store,
    pub(crate) covered: Vec<Head>,
}

/// Choices that follow from a seed.
pub(crate) struct Draw(pub(crate) Seeded);

impl Draw {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }
}

impl World {
    pub(crate) fn new(seed: u64, writers: usize, levels: bool, options: &Options) -> Self {
        let mut entropy = Seeded::new(seed);
        let key = |byte: u8| {
            WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes([byte; 32])).unwrap()
        };
        let owner = key(1);
        let metadata = Metadata::new(owner.public(), None, at(0), &mut entropy).unwrap();
        let generation = GenerationKey::from_secret(1, Secret::from_bytes([7; 32]));
        let mut changes = vec![Change::Generation {
            number: 1,
            commitment: generation.commitment(&metadata),
        }];
        changes.extend((0..writers).map(|n| Change::admit(key(10 + n as u8).public())));
        let (_, config) = Writer::owner(owner, &metadata, &changes, at(0)).unwrap();
        let name = metadata.name();
        let mut keys = KeyRing::new();
        keys.insert(GenerationKey::from_secret(1, Secret::from_bytes([7; 32])))
            .unwrap();
        let members = (0..writers).map(|n| {
            let writer_key = key(10 + n as u8);
            let id = writer_key.id();
            let (writer, open) =
                Writer::open(writer_key, &metadata, config.head(), None, at(0)).unwrap();
            let cold: Arc<dyn Cold> = Arc::new(NoCold);
            let table =
                Table::open(id, options.clone(), cold.clone(), &[], Leases::default()).unwrap();
            table.sealed(open.header());
            let mut applied = vec![0; writers];
            applied[n] = 1;
            Member {
                id,
                writer,
                table,
                pending: Batch::new(),
                payloads: Vec::new(),
                sealed: vec![Vec::new()],
                chain: vec![open],
                applied,
                options: options.clone(),
                cold,
                store: Store::new(levels, name),
                covered: Vec::new(),
            }
        });
        Self {
            members: members.collect(),
            verifier: Verifier::new(metadata, VerifierPolicy::default()),
            keys,
            generation,
            draw: Draw(entropy),
        }
    }

    fn name(&self) -> CapsuleName {
        self.verifier.metadata().name()
    }

    /// What a verifier would say of the record; the verifier's own tests are elsewhere.
    pub(crate) fn applied(&self, record: &Received) -> Applied {
        self.verifier
            .recall(record.clone(), &record.hash())
            .unwrap()
    }

    pub(crate) fn write(
        &mut self,
        member: usize,
        ops: &[Op<'_>],
        now: Time,
    ) -> Result<Written<()>, TableError> {
        let Member {
            table,
            pending,
            payloads,
            ..
        } = &mut self.members[member];
        let written = table.write(ops, now, |batch| pending.append(batch))?;
        // Clocks of one write follow each other.
        let first = written.version.clock.bits() + 1 - ops.len() as u64;
        for (n, op) in ops.iter().enumerate() {
            let action = match *op {
                Op::Put {
                    key,
                    value,
                    expires,
                } => Action::Change(TableChange::Put {
                    key,
                    value,
                    expires,
                }),
                Op::Delete { key } => Action::Change(TableChange::Delete { key }),
                Op::DeleteRange { from, to } => Action::DeleteRange { from, to },
            };
            let clock = Clock::from_bits(first + n as u64);
            let mut payload = Vec::new();
            TableEntry { clock, action }.encode_to(&mut payload);
            payloads.push(payload);
        }
        Ok(written)
    }

    /// Seals what a member was handed.
    pub(crate) fn seal(&mut self, member: usize, now: Time) {
        let Self {
            members,
            generation,
            draw,
            ..
        } = self;
        let member_of = &mut members[member];
        if member_of.pending.is_empty() {
            return;
        }
        let pending = &member_of.pending;
        let record = member_of
            .writer
            .seal(pending, generation, &[], now, &mut draw.0)
            .unwrap();
        member_of.pending.clear();
        let payloads = core::mem::take(&mut member_of.payloads);
        member_of.sealed.push(payloads);
        member_of.table.sealed(record.header());
        member_of.applied[member] += 1;
        member_of.chain.push(record);
    }

    /// Names everything that a member has applied as a cut.
    pub(crate) fn join(&mut self, member: usize, epoch: u64, now: Time) {
        self.seal(member, now);
        let heads = self.heads(member);
        let parents = heads
            .into_iter()
            .filter(|head| head.writer != self.members[member].id);
        let parents: Vec<Head> = parents.collect();
        if parents.is_empty() {
            return;
        }
        let member_of = &mut self.members[member];
        let record = member_of.writer.join(parents, epoch, now).unwrap();
        member_of.table.sealed(record.header());
        member_of.applied[member] += 1;
        member_of.chain.push(record);
        member_of.sealed.push(Vec::new());
    }

    /// The newest record of each chain that a member has applied.
    pub(crate) fn heads(&self, member: usize) -> Vec<Head> {
        let applied = self.members[member].applied.iter().enumerate();
        let newest = applied.filter(|(_, records)| **records > 0);
        newest
            .map(|(of, records)| self.members[of].chain[records - 1].head())
            .collect()
    }

    /// Hands the next record of a chain to a member, where there is one.
    pub(crate) fn deliver(
        &mut self,
        to: usize,
        from: usize,
        now: Time,
    ) -> Option<Result<Taken, ApplyError>> {
        let next = self.members[to].applied[from];
        let record = self.members[from].chain.get(next)?;
        let record = self.applied(record);
        let taken = self.members[to].table.apply(&record, &self.keys, now);
        if matches!(
            taken,
            Ok(_) | Err(ApplyError::Fault { .. } | ApplyError::Rebuild { .. })
        ) {
            self.members[to].applied[from] += 1;
        }
        Some(taken)
    }

    /// Hands a member a record that it has, and one that it cannot have yet.
    pub(crate) fn deliver_twice(&mut self, to: usize, from: usize, now: Time) {
        let has = self.members[to].applied[from];
        let drawn = self.draw.below(has.max(1));
        let chain = &self.members[from].chain;
        if has > 0 {
            let again = self.applied(&chain[drawn]);
            let taken = self.members[to].table.apply(&again, &self.keys, now);
            assert!(taken.unwrap().known);
        }
        if let Some(later) = self.members[from].chain.get(has + 1).filter(|_| has > 0) {
            let later = self.applied(later);
            let refused = self.members[to].table.apply(&later, &self.keys, now);
            assert!(matches!(refused, Err(ApplyError::Gap { .. })));
        }
    }

    pub(crate) fn compact_below(&mut self, member: usize, horizon: Clock, now: Time) {
        let seed = self.draw.0.next_u64();
        let member_of = &mut self.members[member];
        if let Some(cold) = member_of.store.compact(horizon, seed, now) {
            member_of.cold = cold.clone();
            member_of.table.compacted(cold);
        }
    }

    /// Delivers everything to everybody, in an order that is drawn; rebuilds tables that ask for it.
    pub(crate) fn deliver_all(&mut self, now: Time) {
        for member in 0..self.members.len() {
            self.seal(member, now);
        }
        for to in 0..self.members.len() {
            while self.lacks(to) {
                let from = self.draw.below(self.members.len());
                match self.deliver(to, from, now) {
                    Some(Err(ApplyError::Rebuild { .. })) => self.rebuild(to, now),
                    Some(Err(error)) => panic!("{error}"),
                    _ => {}
                }
            }
        }
    }

    fn lacks(&self, member: usize) -> bool {
        let applied = self.members[member].applied.iter().enumerate();
        applied
            .into_iter()
            .any(|(of, records)| *records < self.members[of].chain.len())
    }

    /// Opens a member's table again and applies what it had, chains mixed anew. What was not sealed is
    /// lost with the memory it was in.
    pub(crate) fn restart(&mut self, member: usize, leases: Leases, now: Time) -> bool {
        let had = self.members[member].applied.clone();
        let member_of = &mut self.members[member];
        member_of.pending.clear();
        member_of.payloads.clear();
        let (options, cold) = (member_of.options.clone(), member_of.cold.clone());
        let covered = member_of.covered.clone();
        member_of.table = Table::open(member_of.id, options, cold, &covered, leases).unwrap();
        let from = |of: &Member| {
            let head = covered.iter().find(|head| head.writer == of.id);
            head.map_or(0, |head| head.seq as usize + 1)
        };
        self.members[member].applied = self.members.iter().map(from).collect();
        loop {
            let applied = &self.members[member].applied;
            let behind: Vec<usize> = (0..had.len())
                .filter(|of| applied[*of] < had[*of])
                .collect();
            if behind.is_empty() {
                return true;
            }
            let from = behind[self.draw.below(behind.len())];
            match self.deliver(member, from, now) {
                Some(Err(ApplyError::Rebuild { .. })) => return false,
                Some(Err(error)) => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// Applies every record to a new table, chains mixed anew, faults included.
    pub(crate) fn restart_from(
        &mut self,
        member: usize,
        now: Time,
        mut heard: impl FnMut(&Result<Taken, ApplyError>),
    ) {
        let mut leases = Leases::default();
        'again: loop {
            let member_of = &mut self.members[member];
            let (options, cold) = (member_of.options.clone(), Arc::new(NoCold));
            member_of.table = Table::open(member_of.id, options, cold, &[], leases).unwrap();
            member_of.applied.fill(0);
            while self.lacks(member) {
                let from = self.draw.below(self.members.len());
                match self.deliver(member, from, now) {
                    Some(Err(ApplyError::Rebuild { .. })) => {
                        leases = self.members[member].table.leases();
                        continue 'again;
                    }
                    Some(taken) => heard(&taken),
                    None => {}
                }
            }
            return;
        }
    }

    /// From the log alone, knowing the leases.
    pub(crate) fn rebuild(&mut self, member: usize, now: Time) {
        loop {
            let leases = self.members[member].table.leases();
            let store = Store::new(self.members[member].store.is_levels(), self.name());
            let member_of = &mut self.members[member];
            (member_of.cold, member_of.store) = (Arc::new(NoCold), store);
            member_of.covered.clear();
            if self.restart(member, leases, now) {
                return;
            }
        }
    }

    /// Flushes a member's memtable into a fresh cold side of a map.
    pub(crate) fn flush(&mut self, member: usize, now: Time) {
        self.seal(member, now);
        let Some(frozen) = self.members[member].table.freeze() else {
            return;
        };
        let mut cells = Vec::new();
        loop {
            let after = cells.last().map(|cell: &OwnedCell| cell.key.clone());
            let page = frozen.cells(after.as_deref(), 3);
            if page.is_empty() {
                break;
            }
            cells.extend(page);
        }
        let seed = self.draw.0.next_u64();
        let ranges = frozen.range_deletes();
        let cold = self.members[member].store.flush(cells, ranges, seed, now);
        let chains: BTreeMap<WriterId, usize> = self
            .members
            .iter()
            .enumerate()
            .map(|(n, member)| (member.id, n))
            .collect();
        let covered = frozen.covered().iter();
        let covered = covered.map(|(id, seq)| self.members[chains[id]].chain[*seq as usize].head());
        let covered: Vec<Head> = covered.collect();
        let member_of = &mut self.members[member];
        for head in covered {
            member_of
                .covered
                .retain(|known| known.writer != head.writer);
            member_of.covered.push(head);
        }
        member_of.cold = cold.clone();
        member_of.table.flushed(frozen, cold);
    }

    pub(crate) fn value(
        &self,
        member: usize,
        key: &[u8],
        how: Consistency,
        now: Time,
    ) -> Option<Vec<u8>> {
        let found = self.members[member].table.get(key, how, now).unwrap();
        found.map(|found| found.value.to_vec())
    }
}
