//! Members, the wires between them, who kills and who restarts them.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use bield_capsule::{Batch, Change, GenerationKey, Metadata, Received, Suite, Writer, WriterKey};
use bield_envelope::{Digest, Seeded, Time};
use bield_evidence::{
    Evidence, HardeningStatement, Measurement, Policy, Reference, Roots, TeeKind, canonical_dcap,
};
use bield_group::MemberId;
use bield_platform::Randomness;
use bield_session::{
    Expect, Freshness, Identity, Local, Session, SessionError, SessionKey, accept, connect,
    provider,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};
use rand_core::Rng as _;

use super::disk::{Auditor, Disk, Sink};
use crate::cluster::message::{Hello, Message, VERSION};
use crate::cluster::{
    Agreement as _, Cluster, Head, NotCommitted, Pipe, Role, Settings, Slot, Stopped, Surroundings,
    Unconfirmed, handle,
};

pub(super) const CODE: [u8; 32] = [0x11; 32];
pub(super) const OTHER_CODE: [u8; 32] = [0x22; 32];
const NOW: Time = Time::from_secs(1_800_000_000);
const TICK: Duration = Duration::from_millis(20);
pub(super) const LOOK: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What all members are told about the world around them.
#[derive(Default)]
pub(super) struct World {
    /// The machine of every slot, if machines are named.
    pub(super) named: Mutex<Option<[u8; 16]>>,
    /// What the witnesses say, if there are any.
    pub(super) witnesses: Mutex<Option<Result<(), Unconfirmed>>>,
    /// What was said of members that did not take each other: who said it, and of whom.
    pub(super) apart: Mutex<BTreeMap<(Slot, Slot), String>>,
    /// Whether the other code is admitted, as far as is known.
    pub(super) admits_other: AtomicBool,
}

/// Records of one chain, in order.
pub(super) struct Records(Mutex<(Writer, GenerationKey, u64)>);

pub(super) const LATER: Time = Time::from_secs(1_800_000_000 + 3600);

impl Records {
    pub(super) fn new() -> Self {
        let mut entropy = Seeded::new(31);
        let suite = Suite::Ed25519;
        let owner = WriterKey::generate(suite, &mut entropy);
        let metadata = Metadata::new(owner.public(), None, NOW, &mut entropy).unwrap();
        let key = WriterKey::generate(suite, &mut entropy);
        let generation = GenerationKey::generate(1, &mut entropy);
        let changes = [
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
            Change::admit(key.public()),
        ];
        let (owner, _) = Writer::owner(owner, &metadata, &changes, NOW).unwrap();
        let head = owner.head().unwrap();
        let (writer, _) = Writer::open(key, &metadata, head, None, NOW).unwrap();
        Self(Mutex::new((writer, generation, 0)))
    }

    pub(super) fn next(&self) -> Received {
        self.next_at(NOW)
    }

    pub(super) fn next_at(&self, now: Time) -> Received {
        let mut state = self.0.lock().unwrap();
        state.2 += 1;
        let (writer, generation, number) = &mut *state;
        let mut batch = Batch::new();
        batch.push(&number.to_be_bytes()).unwrap();
        let mut entropy = Randomness;
        let sealed = writer.seal(&batch, generation, &[], now, &mut entropy);
        sealed.unwrap()
    }
}

/// Two quoting machines for all tests: making their certificates takes a while.
pub(super) fn machines() -> &'static [Platform; 2] {
    static MACHINES: OnceLock<[Platform; 2]> = OnceLock::new();
    let machine = |seed| Platform::generate(Options::seeded([seed; 32], NOW.minus(DAY))).unwrap();
    MACHINES.get_or_init(|| [machine(7), machine(8)])
}

fn quote(machine: &Platform, code: [u8; 32], report_data: &[u8; 64]) -> Evidence {
    let report = SgxReport {
        measurement: code,
        report_data: *report_data,
        ..SgxReport::default()
    };
    let collateral = machine.collateral(Kind::Sgx, &CollateralOptions::at(NOW));
    canonical_dcap(&machine.sgx_quote(&report), &collateral.unwrap()).unwrap()
}

fn identity(machine: &'static Platform, code: [u8; 32]) -> Identity {
    Identity::issue(
        provider(),
        SessionKey::generate(&mut Randomness),
        bield_session::Role::KeyService,
        None,
        TeeKind::Sgx,
        HardeningStatement::default(),
        NOW,
        DAY,
        Box::new(move |data| Ok(quote(machine, code, data))),
    )
    .unwrap()
}

fn expect() -> Expect {
    let roots = machines().iter().fold(Roots::none(), |roots, machine| {
        roots.with_simulated_dcap(machine.root_der().to_vec())
    });
    let policy = Policy::dev(Reference::Deferred);
    let role = bield_session::Role::KeyService;
    Expect::attested(role, roots, policy, None, Freshness::Fresh)
}

/// One process in one slot.
pub(super) struct Node {
    pub(super) slot: Slot,
    cluster: OnceLock<Cluster>,
    around: Arc<Around>,
    attended: AtomicU64,
}

/// What surrounds it.
struct Around {
    slot: Slot,
    world: Arc<World>,
    wires: Weak<Wires>,
    identity: Arc<Identity>,
    dead: Arc<AtomicBool>,
    streams: Mutex<Vec<UnixStream>>,
}

impl Node {
    pub(super) fn cluster(&self) -> &Cluster {
        self.cluster.get().unwrap()
    }

    pub(super) fn hello(&self) -> Hello {
        hello(self.slot)
    }

    /// How many sessions others have opened to it.
    pub(super) fn attended(&self) -> u64 {
        self.attended.load(Ordering::SeqCst)
    }

    /// From now on it writes nothing, says nothing and hears nothing.
    pub(super) fn kill(&self) {
        self.around.dead.store(true, Ordering::SeqCst);
        for stream in self.around.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.cluster().stop();
    }

    fn is_dead(&self) -> bool {
        self.around.dead.load(Ordering::SeqCst)
    }
}

fn hello(slot: Slot) -> Hello {
    Hello {
        version: VERSION,
        member: MemberId::new(slot, Randomness.next_u64()).unwrap().as_u64(),
        members: 3,
    }
}

/// Who is behind which slot's address.
#[derive(Default)]
struct Wires {
    nodes: Mutex<Vec<Option<Arc<Node>>>>,
    /// Takes the place of a node: what dials its slot ends here.
    taken: Mutex<Option<(Slot, std::sync::mpsc::Sender<UnixStream>)>>,
}

impl Surroundings for Around {
    fn dial(&self, slot: Slot) -> io::Result<Box<dyn Pipe>> {
        let gone = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let wires = self.wires.upgrade().ok_or_else(gone)?;
        if self.dead.load(Ordering::SeqCst) {
            return Err(gone());
        }
        let (near, far) = wire()?;
        self.streams.lock().unwrap().push(near.try_clone()?);
        let near = Wire(near);
        if let Some((taken, into)) = &*wires.taken.lock().unwrap()
            && *taken == slot
        {
            into.send(far).map_err(|_| gone())?;
            return Ok(Box::new(near));
        }
        let node = wires.nodes.lock().unwrap()[usize::from(slot)].clone();
        let node = node.filter(|node| !node.is_dead()).ok_or_else(gone)?;
        attend(node, far)?;
        Ok(Box::new(near))
    }

    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        Ok(Arc::clone(&self.identity))
    }

    fn expect(&self) -> Result<Expect, SessionError> {
        Ok(expect())
    }

    fn admitted(&self, code: &Measurement) -> bool {
        *code == Measurement::new(TeeKind::Sgx, &CODE).unwrap()
            || self.world.admits_other.load(Ordering::SeqCst)
    }

    fn withdrawn(&self, code: &Measurement) -> bool {
        !self.admitted(code)
    }

    fn fits(&self, _: Slot, machine: &[u8]) -> bool {
        let named = *self.world.named.lock().unwrap();
        named.is_none_or(|named| named == machine)
    }

    fn apart(&self, slot: Slot, why: &str) {
        let mut apart = self.world.apart.lock().unwrap();
        apart.insert((self.slot, slot), why.to_owned());
    }

    fn now(&self) -> Time {
        NOW
    }

    fn has_witnesses(&self) -> bool {
        self.world.witnesses.lock().unwrap().is_some()
    }

    fn confirm(&self, _: &Head) -> Result<(), Unconfirmed> {
        let said = self.world.witnesses.lock().unwrap().clone();
        said.unwrap_or_else(|| Err(Unconfirmed::Unknown("no witnesses".into())))
    }

    fn changed(&self, _: Role) {}

    fn stopped(&self, why: &Stopped) {
        eprintln!("slot {} stopped: {why}", self.slot);
    }
}

/// A stream that ends for its other end, too, when it is dropped, although whoever may kill its owner
/// holds a copy.
struct Wire(UnixStream);

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn wire() -> io::Result<(UnixStream, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(10)))?;
        end.set_write_timeout(Some(Duration::from_secs(10)))?;
    }
    Ok((near, far))
}

/// The accept loop of a node, for one connection.
fn attend(node: Arc<Node>, stream: UnixStream) -> io::Result<()> {
    node.around
        .streams
        .lock()
        .unwrap()
        .push(stream.try_clone()?);
    let stream = Wire(stream);
    std::thread::spawn(move || {
        let accepted = accept(
            stream,
            &node.around.identity,
            &[expect()],
            NOW,
            &mut Randomness,
        );
        if let Ok(session) = accepted {
            node.attended.fetch_add(1, Ordering::SeqCst);
            node.cluster().serve(session);
        }
    });
    Ok(())
}

/// Three slots with disks.
pub(super) struct Cast {
    pub(super) disks: Vec<Disk>,
    pub(super) records: Records,
    pub(super) world: Arc<World>,
    auditor: Arc<Auditor>,
    wires: Arc<Wires>,
    acknowledged: Mutex<Vec<Digest>>,
    /// Slots whose processes are restarted when they stop by themselves.
    supervised: Mutex<Vec<Slot>>,
    service: [u8; 32],
}

impl Cast {
    pub(super) fn new() -> Self {
        let mut service = [0; 32];
        Randomness.fill_bytes(&mut service);
        let wires = Wires {
            nodes: Mutex::new(vec![None, None, None]),
            taken: Mutex::default(),
        };
        Self {
            disks: (0..3).map(|_| Disk::default()).collect(),
            records: Records::new(),
            world: Arc::default(),
            auditor: Arc::default(),
            wires: Arc::new(wires),
            acknowledged: Mutex::default(),
            supervised: Mutex::default(),
            service,
        }
    }

    pub(super) fn start_all(&self) {
        (0..3).for_each(|slot| self.start(slot));
    }

    /// Starts a slot, and again whenever its process stops by itself.
    pub(super) fn start(&self, slot: Slot) {
        self.supervised.lock().unwrap().push(slot);
        self.start_once(slot);
    }

    /// As [`start_once`](Self::start_once), and it stays down when it stops.
    pub(super) fn start_unsupervised(&self, slot: Slot) {
        self.supervised.lock().unwrap().retain(|one| *one != slot);
        self.start_once(slot);
    }

    pub(super) fn sequence(&self) -> Vec<Digest> {
        self.auditor.sequence()
    }

    pub(super) fn start_once(&self, slot: Slot) {
        let dead = Arc::new(AtomicBool::new(false));
        let around = Arc::new(Around {
            slot,
            world: Arc::clone(&self.world),
            wires: Arc::downgrade(&self.wires),
            identity: Arc::new(identity(&machines()[0], CODE)),
            dead: Arc::clone(&dead),
            streams: Mutex::default(),
        });
        let sink = Sink {
            disk: self.disks[usize::from(slot)].clone(),
            auditor: Arc::clone(&self.auditor),
            service: self.service,
            dead,
        };
        let node = Arc::new(Node {
            slot,
            cluster: OnceLock::new(),
            around: Arc::clone(&around),
            attended: AtomicU64::new(0),
        });
        let cluster = Cluster::start(settings(slot, 3), Box::new(sink), around).unwrap();
        assert!(node.cluster.set(cluster).is_ok());
        self.wires.nodes.lock().unwrap()[usize::from(slot)] = Some(node);
    }

    pub(super) fn node(&self, slot: Slot) -> Arc<Node> {
        let nodes = self.wires.nodes.lock().unwrap();
        nodes[usize::from(slot)].clone().unwrap()
    }

    fn alive(&self) -> Vec<Arc<Node>> {
        let nodes = self.wires.nodes.lock().unwrap();
        let alive = nodes.iter().flatten().filter(|node| !node.is_dead());
        alive.cloned().collect()
    }

    /// Restarts who stopped by itself, as an operator's supervisor does.
    fn supervise(&self) {
        for node in self.alive() {
            let supervised = self.supervised.lock().unwrap().contains(&node.slot);
            if supervised && node.cluster().stopped().is_some() {
                node.kill();
                self.start_once(node.slot);
            }
        }
    }

    pub(super) fn wait(&self, what: &str, mut until: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !until() {
            assert!(Instant::now() < deadline, "waited too long for {what}");
            self.supervise();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn leader(&self) -> Arc<Node> {
        let mut found = None;
        self.wait("a leader", || {
            let leads = |node: &Arc<Node>| {
                let cluster = node.cluster();
                cluster.role() == Role::Leader && cluster.stopped().is_none()
            };
            found = self.alive().into_iter().find(leads);
            found.is_some()
        });
        found.unwrap()
    }

    /// Has one record acknowledged, by whoever leads.
    pub(super) fn commit_one(&self) -> Received {
        loop {
            let record = self.records.next();
            let leader = self.leader();
            loop {
                match leader.cluster().commit(&record) {
                    Ok(()) => {
                        self.acknowledged.lock().unwrap().push(record.hash());
                        return record;
                    }
                    Err(NotCommitted::Unknown | NotCommitted::Busy) => {}
                    // It may count or not; a client would find out. The next one, elsewhere.
                    Err(NotCommitted::Stopped(_) | NotCommitted::NotLeader) => break,
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// All three are in a group: one leads, two follow it.
    pub(super) fn all_follow(&self) -> bool {
        let alive = self.alive();
        let roles: Vec<Role> = alive.iter().map(|node| node.cluster().role()).collect();
        let leads = roles.iter().filter(|role| **role == Role::Leader).count();
        let follows = |role: &&Role| matches!(role, Role::Follower { leader: Some(_) });
        leads == 1 && roles.iter().filter(follows).count() == 2
    }

    /// In the end every disk shows the one sequence, and all that was acknowledged is in it.
    pub(super) fn all_have_everything(&self) {
        self.wait("all disks to show everything", || {
            let sequence = self.auditor.sequence();
            let mut contents = self.disks.iter().map(Disk::snapshot);
            self.all_follow() && contents.all(|disk| disk.committed == sequence)
        });
        let sequence = self.auditor.sequence();
        for record in &*self.acknowledged.lock().unwrap() {
            assert!(sequence.contains(record), "acknowledged and lost");
        }
    }

    pub(super) fn hello_of(&self, slot: Slot) -> Hello {
        hello(slot)
    }

    /// Dials the member in `slot` as a program with this code does.
    pub(super) fn dial_as(
        &self,
        code: [u8; 32],
        slot: Slot,
    ) -> Result<Session<UnixStream>, SessionError> {
        self.dial_from(&machines()[0], code, slot)
    }

    pub(super) fn dial_from(
        &self,
        machine: &'static Platform,
        code: [u8; 32],
        slot: Slot,
    ) -> Result<Session<UnixStream>, SessionError> {
        let (near, far) = wire().unwrap();
        attend(self.node(slot), far).unwrap();
        let identity = identity(machine, code);
        connect(
            near,
            Local::Attested(&identity),
            &expect(),
            NOW,
            &mut Randomness,
        )
    }

    /// Takes the place of `slot` with a program of this code; gives the first message that a member
    /// sends it.
    pub(super) fn impersonate(&self, slot: Slot, code: [u8; 32]) -> Option<Message> {
        self.impersonate_on(&machines()[0], slot, code)
    }

    pub(super) fn impersonate_on(
        &self,
        machine: &'static Platform,
        slot: Slot,
        code: [u8; 32],
    ) -> Option<Message> {
        let (into, dialled) = std::sync::mpsc::channel();
        *self.wires.taken.lock().unwrap() = Some((slot, into));
        let stream = dialled.recv_timeout(Duration::from_secs(60)).unwrap();
        let identity = identity(machine, code);
        let mut session = accept(stream, &identity, &[expect()], NOW, &mut Randomness).unwrap();
        let heard = session.receive().ok();
        *self.wires.taken.lock().unwrap() = None;
        heard.map(|bytes| Message::decode(&bytes).unwrap())
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        for node in self.alive() {
            node.kill();
        }
    }
}

/// Shorter than in service, so that tests wait little; long enough for two busy cores.
fn settings(slot: Slot, members: u8) -> Settings {
    let mut settings = Settings::new(slot, members);
    settings.tick = TICK;
    settings.limits.look = 5;
    settings.commit_wait = Duration::from_secs(2);
    settings
}

/// Whether a member is not started in this slot of so many.
pub(super) fn refused(slot: Slot, members: u8) -> bool {
    let around = Arc::new(Around {
        slot,
        world: Arc::default(),
        wires: Weak::new(),
        identity: Arc::new(identity(&machines()[0], CODE)),
        dead: Arc::default(),
        streams: Mutex::default(),
    });
    let sink = Sink {
        disk: Disk::default(),
        auditor: Arc::default(),
        service: [1; 32],
        dead: Arc::default(),
    };
    let started = Cluster::start(settings(slot, members), Box::new(sink), around);
    if let Ok(cluster) = &started {
        cluster.stop();
    }
    matches!(started, Err(handle::StartError::Slot { .. }))
}
