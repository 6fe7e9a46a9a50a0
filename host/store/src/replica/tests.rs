//! A replica on a disk that fails, and under any order of delivery.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bield_capsule::{Batch, Change, GenerationKey, Suite, Writer, WriterKey};
use bield_envelope::Seeded;
use proptest::prelude::*;

use super::*;
use crate::admission::{Owners, Quotas};
use crate::disk::{Fault, Faulty, Operation, Survival};
use crate::journal::{SegmentJournal, Visit};
use crate::{Settings, Store};

/// One capsule's items in memory, its journal on a disk that fails on demand.
#[derive(Default)]
struct Failing {
    disk: Faulty,
    items: Mutex<BTreeMap<&'static str, Vec<u8>>>,
    capsule: Mutex<Option<CapsuleName>>,
}

impl Failing {
    /// The same items on the disk as a crash leaves it.
    fn after(&self, survival: Survival) -> Arc<Self> {
        Arc::new(Self {
            disk: self.disk.restart(survival),
            items: Mutex::new(self.items.lock().unwrap().clone()),
            capsule: Mutex::new(*self.capsule.lock().unwrap()),
        })
    }
}

impl Storage for Failing {
    fn capsules(&self) -> io::Result<Vec<CapsuleName>> {
        Ok(self.capsule.lock().unwrap().iter().copied().collect())
    }

    fn get(&self, _: &CapsuleName, item: &'static str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.items.lock().unwrap().get(item).cloned())
    }

    fn put(&self, capsule: &CapsuleName, item: &'static str, bytes: &[u8]) -> io::Result<()> {
        *self.capsule.lock().unwrap() = Some(*capsule);
        self.items.lock().unwrap().insert(item, bytes.to_vec());
        Ok(())
    }

    fn journal(
        &self,
        capsule: &CapsuleName,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Box<dyn Journal>, OpenJournalError> {
        let journal = SegmentJournal::open(self.disk.clone(), *capsule.as_bytes(), options, visit)?;
        Ok(Box::new(journal))
    }
}

/// A capsule with two writers of some records.
struct Story {
    metadata: Metadata,
    /// The configuration, then both chains.
    chains: Vec<Vec<Received>>,
}

const NOW: Time = Time::from_millis(1_700_000_000_000);

fn story(records: usize) -> Story {
    let mut entropy = Seeded::new(1);
    let key = |seed| WriterKey::generate(Suite::Ed25519, &mut Seeded::new(seed));
    let metadata = Metadata::new(key(2).public(), None, NOW, &mut entropy).unwrap();
    let generation = GenerationKey::generate(1, &mut entropy);
    let changes = [
        Change::Generation {
            number: 1,
            commitment: generation.commitment(&metadata),
        },
        Change::admit(key(3).public()),
        Change::admit(key(4).public()),
    ];
    let (owner, config) = Writer::owner(key(2), &metadata, &changes, NOW).unwrap();
    let mut chains = vec![vec![config]];
    for seed in [3, 4] {
        let (mut writer, open) =
            Writer::open(key(seed), &metadata, owner.head().unwrap(), None, NOW).unwrap();
        let mut chain = vec![open];
        for n in 0..records {
            let mut batch = Batch::new();
            batch.push(&n.to_be_bytes()).unwrap();
            chain.push(
                writer
                    .seal(&batch, &generation, &[], NOW, &mut entropy)
                    .unwrap(),
            );
        }
        chains.push(chain);
    }
    Story { metadata, chains }
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(&mut Seeded::new(9)))
}

fn anything() -> Admission {
    Admission::new(Owners::Any, Quotas::default())
}

fn create(storage: &Arc<Failing>, story: &Story) -> Result<Replica, OpenError> {
    let storage: Arc<dyn Storage> = Arc::clone(storage) as _;
    Replica::create(storage, key(), &story.metadata, VerifierPolicy::default())
}

fn open(storage: Arc<Failing>, story: &Story) -> Result<Replica, OpenError> {
    Replica::open(
        storage,
        key(),
        story.metadata.name(),
        VerifierPolicy::default(),
    )
}

/// What a replica has signed to have synced: the newest position of each chain.
type Promised = BTreeMap<WriterId, u64>;

/// Gives a replica the story in groups, syncs after each, and notes what it promises.
fn tell(replica: &mut Replica, story: &Story, promised: &mut Promised) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for chain in &story.chains {
        for group in chain.chunks(2) {
            let taken = replica.ingest(group.to_vec(), Source::Sender, NOW, &anything());
            refusals.extend(taken.refused);
            refusals.extend(replica.sync().err());
            for writer in taken.writers {
                let said = replica.acknowledge(&writer, NOW).unwrap();
                let said = Signed::<Acknowledgement>::decode(&said)
                    .unwrap()
                    .verify_claimed()
                    .unwrap();
                if said.kept == Kept::Synced {
                    promised.insert(writer, said.seq);
                }
            }
        }
    }
    refusals
}

#[test]
fn whatever_the_disk_does_what_was_acknowledged_as_synced_is_there() {
    let story = story(5);
    let probe = Arc::new(Failing::default());
    let mut promised = Promised::new();
    tell(&mut create(&probe, &story).unwrap(), &story, &mut promised);
    let operations = probe.disk.operations();
    assert!(operations.contains(&Operation::SyncData) && promised.len() == 3);
    let mut stopped = 0;
    for at in 0..operations.len() {
        for fault in [Fault::Io, Fault::NoSpace, Fault::Crash] {
            let storage = Arc::new(Failing::default());
            storage.disk.plan(at, fault);
            let mut promised = Promised::new();
            let Ok(mut replica) = create(&storage, &story) else {
                continue; // it failed before there was a replica: nothing was promised
            };
            let refusals = tell(&mut replica, &story, &mut promised);
            for refusal in &refusals {
                let known = ["stopped", "disk-full", "gap", "config-gap"];
                assert!(known.contains(&refusal.slug), "{at} {fault:?}: {refusal:?}");
            }
            stopped += usize::from(replica.is_stopped());
            drop(replica);
            for survival in [
                Survival::Nothing,
                Survival::Everything,
                Survival::TornLast(7),
                Survival::Seed(at as u64),
            ] {
                let copy = Failing {
                    disk: storage.disk.copy(),
                    items: Mutex::new(storage.items.lock().unwrap().clone()),
                    capsule: Mutex::new(*storage.capsule.lock().unwrap()),
                };
                let replica = open(copy.after(survival), &story).unwrap();
                for (writer, seq) in &promised {
                    let held = replica.head_of(writer).map(|head| head.seq);
                    assert!(
                        held >= Some(*seq),
                        "{at} {fault:?} {survival:?}: {held:?} of {seq}"
                    );
                }
                for chain in &story.chains {
                    let writer = chain[0].header().writer;
                    let held = replica.head_of(&writer).map_or(0, |head| head.seq + 1);
                    let page = replica
                        .records(&writer, 0, u64::MAX)
                        .map_or_else(|_| Vec::new(), |page| page.bytes);
                    let held: Vec<&[u8]> = chain[..held as usize]
                        .iter()
                        .map(Received::as_bytes)
                        .collect();
                    assert_eq!(
                        frames::items(&page).map(Result::unwrap).collect::<Vec<_>>(),
                        held
                    );
                }
            }
        }
    }
    assert!(stopped > 5, "errors stopped replicas: {stopped}");
}

#[test]
fn after_a_full_disk_the_same_replica_goes_on() {
    let story = story(3);
    let all: Vec<Received> = story.chains.concat();
    let mut went_on = 0;
    for at in 0..40 {
        let storage = Arc::new(Failing::default());
        storage.disk.plan(at, Fault::NoSpace);
        let Ok(mut replica) = create(&storage, &story) else {
            continue;
        };
        for record in &all {
            let take = |replica: &mut Replica| {
                replica.ingest(vec![record.clone()], Source::Sender, NOW, &anything())
            };
            let Some(refusal) = take(&mut replica).refused else {
                continue;
            };
            if refusal.slug != "disk-full" {
                break;
            }
            assert!((refusal.status, refusal.retry) == (507, true) && !replica.is_stopped());
            assert!(
                take(&mut replica).refused.is_none(),
                "space was freed: {at}"
            );
            went_on += 1;
        }
        if !replica.is_stopped() && replica.sync().is_ok() {
            assert_eq!(replica.standing().records, all.len() as u64);
            let reopened = open(storage.after(Survival::Nothing), &story).unwrap();
            assert_eq!(reopened.standing(), replica.standing());
        }
    }
    assert!(went_on > 0, "the disk was full at no append");
}

#[test]
fn a_store_whose_sync_fails_answers_stopped_and_still_serves_what_it_has() {
    let story = story(3);
    let storage = Arc::new(Failing::default());
    let settings = Settings {
        storage: Arc::clone(&storage) as _,
        key: SigningKey::generate(&mut Seeded::new(9)),
        admission: anything(),
        policy: VerifierPolicy::default(),
        shards: 1,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Store::open(settings).unwrap();
    let name = story.metadata.name();
    let append = |records: &[Received]| {
        let append = store.append(name, records.to_vec(), None, Kept::Synced, Source::Sender);
        runtime.block_on(append)
    };
    runtime
        .block_on(store.create(story.metadata.clone()))
        .unwrap();
    append(&story.chains[0]).unwrap();
    append(&story.chains[1][..2]).unwrap();
    // Whichever operations the next append needs, the first sync among them fails.
    let syncs_at =
        |operation: &Operation| matches!(operation, Operation::SyncData | Operation::SyncAll);
    let before = storage.disk.operations().len();
    append(&story.chains[1][2..3]).unwrap();
    let place = storage.disk.operations()[before..]
        .iter()
        .position(syncs_at)
        .unwrap();
    storage
        .disk
        .plan(storage.disk.operations().len() + place, Fault::Io);
    let refusal = append(&story.chains[1][3..]).unwrap_err();
    assert_eq!((refusal.status, refusal.slug), (503, "stopped"));
    let again = append(&story.chains[2]).unwrap_err();
    assert_eq!(
        again.slug, "stopped",
        "nothing more is taken before somebody has looked"
    );
    let writer = story.chains[1][0].header().writer;
    let page = runtime
        .block_on(store.ask(name, move |replica| replica.records(&writer, 0, 2)))
        .unwrap();
    assert_eq!(page.records, 3);
    store.close();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model: the longest prefix of each chain that came in some order.
    #[test]
    fn any_order_of_delivery_leaves_each_chain_as_its_longest_prefix(
        deliveries in proptest::collection::vec((0usize..3, 0usize..8, 1usize..5, any::<bool>()), 1..40)
    ) {
        let story = story(6);
        let storage = Arc::new(Failing::default());
        let mut replica = create(&storage, &story).unwrap();
        let mut model = [0usize; 3];
        for (chain, start, count, reopened) in deliveries {
            let records = &story.chains[chain];
            let start = start.min(records.len() - 1);
            let end = (start + count).min(records.len());
            let taken = replica.ingest(records[start..end].to_vec(), Source::Sender, NOW, &anything());
            let possible = chain == 0 || model[0] > 0;
            let good = start <= model[chain] && (possible || end <= model[chain]);
            prop_assert_eq!(taken.accepted, if good { end - start } else { 0 });
            if good {
                model[chain] = model[chain].max(end);
            }
            if reopened {
                replica.sync().unwrap();
                drop(replica);
                replica = open(Arc::clone(&storage), &story).unwrap();
            }
            for (records, held) in story.chains.iter().zip(model) {
                let tip = held.checked_sub(1).map(|last| records[last].head());
                prop_assert_eq!(replica.head_of(&records[0].header().writer), tip);
            }
            prop_assert_eq!(replica.standing().records, model.iter().sum::<usize>() as u64);
        }
    }
}
