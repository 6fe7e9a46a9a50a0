//! Random operations and crashes against a list.

use proptest::prelude::*;

use super::*;
use crate::Fault;

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Snapshot,
    /// Begins one apart, or goes on with it.
    Apart,
    Restart,
    /// The next write breaks off, after so many bytes.
    Crash(u64, u64),
    Refuse(u64),
    LoseAnswer(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u8..4).prop_map(Step::Put),
        2 => Just(Step::Snapshot),
        3 => Just(Step::Apart),
        1 => Just(Step::Restart),
        2 => (0_u64..4, 0_u64..1200).prop_map(|(after, bytes)| Step::Crash(after, bytes)),
        1 => (0_u64..3).prop_map(Step::Refuse),
        1 => (0_u64..3).prop_map(Step::LoseAnswer),
    ]
}

/// A service and what it acknowledged.
struct Story {
    service: Service,
    told: Vec<Vec<u8>>,
    /// Sent, and neither acknowledged nor known to be lost.
    open: Option<(bield_capsule::Received, Vec<Vec<u8>>)>,
    heads: Vec<bield_tlog::TreeHead>,
    number: u8,
    job: Option<crate::SnapshotJob>,
}

impl Story {
    /// What a thread of its own does, step by step between the others.
    fn apart(&mut self) {
        let Service {
            ledger,
            entropy,
            disk,
            state,
        } = &mut self.service;
        let Some(job) = &mut self.job else {
            if let Ok(begun) = ledger.begin_snapshot(&encode(state), entropy) {
                self.job = begun;
            }
            return;
        };
        match job.step(disk) {
            Ok(None) => return,
            // What it cannot remove it removes later.
            Ok(written) => drop(ledger.end_snapshot(written)),
            Err(_) => drop(ledger.end_snapshot(None)),
        }
        self.job = None;
    }

    fn put(&mut self, entries: u8) {
        if self.open.is_none() {
            self.number = self.number.wrapping_add(1);
            let entries: Vec<Vec<u8>> =
                (0..entries).map(|entry| vec![self.number, entry]).collect();
            let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            let Service {
                ledger, entropy, ..
            } = &mut self.service;
            let record = ledger.seal(&slices, at(1), entropy).unwrap();
            self.open = Some((record, entries));
        }
        let Some((record, entries)) = self.open.take() else {
            return;
        };
        match self.service.ledger.commit(&record) {
            Ok(given) => {
                assert_eq!(given.len(), entries.len());
                self.told.extend(entries.clone());
                self.service.state.extend(entries);
                self.heads.push(self.service.ledger.head());
            }
            Err(LedgerError::NotDurable(_)) => self.open = Some((record, entries)),
            Err(error) => panic!("{error}"),
        }
    }

    fn restart(&mut self) {
        self.job = None;
        self.service.disk.restart();
        self.service = load(&self.service.disk).unwrap_or_else(|error| panic!("{error}"));
        let with: Vec<Vec<u8>> = match self.open.take() {
            Some((_, entries)) => self.told.iter().cloned().chain(entries).collect(),
            None => self.told.clone(),
        };
        let state = &self.service.state;
        assert!(*state == self.told || *state == with);
        self.told.clone_from(state);
        for head in &self.heads {
            assert!(self.service.ledger.contains(*head));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_the_list_whatever_fails(steps in proptest::collection::vec(step(), 1..40)) {
        let mut story = Story {
            service: Service::new(MemoryFiles::new()).unwrap(),
            told: Vec::new(),
            open: None,
            heads: Vec::new(),
            number: 0,
            job: None,
        };
        for step in steps {
            let disk = story.service.disk.clone();
            match step {
                Step::Put(entries) => story.put(entries),
                Step::Snapshot => {
                    let result = story.service.snapshot();
                    let waits = story.open.is_some() || story.job.is_some();
                    prop_assert!(!waits || result.is_err());
                }
                Step::Apart => story.apart(),
                Step::Restart => story.restart(),
                Step::Crash(after, bytes) => {
                    disk.fail(Fault::Crash { write: disk.writes() + after, bytes });
                }
                Step::Refuse(after) => {
                    disk.fail(Fault::Refuse { write: disk.writes() + after });
                }
                Step::LoseAnswer(after) => {
                    disk.fail(Fault::LoseAnswer { write: disk.writes() + after });
                }
            }
            if disk.crashed() {
                story.restart();
            }
        }
        story.restart();
        story.put(1);
        story.restart();
    }
}
