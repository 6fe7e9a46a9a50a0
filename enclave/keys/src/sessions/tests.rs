//! Slow, hostile and many peers, over a real door.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use bield_door::{Door, Visit};
use bield_envelope::Time;
use bield_evidence::{
    HardeningStatement, Measurement, Policy, Reference, Roots, TeeKind, canonical_dcap,
};
use bield_ledger::MemoryFiles;
use bield_session::{Freshness, Local, SessionKey, connect, provider};
use bield_software_tee::{
    CollateralOptions, Kind, Options as PlatformOptions, Platform, SgxReport,
};

use super::*;
use crate::limits::lock;
use crate::testing::{InProcess, Options};

const DAY: Duration = Duration::from_secs(24 * 3600);
const CODE: [u8; 32] = [0x11; 32];

/// A key service behind a door, and the world outside of it.
struct Scene {
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    path: PathBuf,
    roots: Roots,
    _directory: tempfile::TempDir,
}

struct Front {
    identity: Arc<Identity>,
    service: InProcess,
    /// Makes the next session panic.
    fault: AtomicBool,
    /// Sessions that began.
    begun: AtomicUsize,
}

impl House for Front {
    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        assert!(!self.fault.swap(false, Ordering::SeqCst), "on purpose");
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::clone(&self.identity))
    }

    fn expect(&self) -> Result<Vec<Expect>, SessionError> {
        Ok(vec![Expect::Client])
    }

    fn serve_member(&self, _: Session<MemberStream<'_>>) {
        panic!("there is one member only");
    }

    fn service(&self) -> &Arc<KeyService> {
        self.service.service()
    }
}

fn platform() -> (&'static Platform, Time) {
    static MADE: OnceLock<(Platform, Time)> = OnceLock::new();
    let (platform, at) = MADE.get_or_init(|| {
        let at = now();
        let options = PlatformOptions::seeded([4; 32], at.minus(DAY));
        (Platform::generate(options).unwrap(), at)
    });
    (platform, *at)
}

fn identity() -> Arc<Identity> {
    let (platform, at) = platform();
    let attest = Box::new(move |report_data: &[u8; 64]| {
        let report = SgxReport {
            measurement: CODE,
            report_data: *report_data,
            ..SgxReport::default()
        };
        let collateral = platform
            .collateral(Kind::Sgx, &CollateralOptions::at(at))
            .unwrap();
        Ok(canonical_dcap(&platform.sgx_quote(&report), &collateral).unwrap())
    });
    let key = SessionKey::generate(&mut Randomness);
    let kind = TeeKind::Sgx;
    let made = Identity::issue(
        provider(),
        key,
        Role::KeyService,
        None,
        kind,
        HardeningStatement::default(),
        at,
        DAY,
        attest,
    );
    Arc::new(made.unwrap())
}

impl Scene {
    fn new(sessions_max: usize) -> (Self, Arc<Front>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::new(UnixListener::bind(&path).unwrap());
        let front = Arc::new(Front {
            identity: identity(),
            service: InProcess::start(MemoryFiles::new(), &Options::new(now)).unwrap(),
            fault: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
        });
        let metrics = Arc::new(Metrics::default());
        let house: Arc<dyn House> = Arc::clone(&front) as _;
        let sessions = Sessions::new(house, sessions_max, Arc::clone(&metrics));
        let accepting = Arc::clone(&sessions);
        std::thread::spawn(move || {
            while let Ok((Visit::Session, stream)) = door.accept() {
                accepting.serve(stream);
            }
        });
        let root = platform().0.root_der().to_vec();
        let scene = Self {
            sessions,
            metrics,
            path,
            roots: Roots::none().with_simulated_dcap(root),
            _directory: directory,
        };
        (scene, front)
    }

    /// A connection that has said nothing yet.
    fn dial(&self) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(&[Visit::Session.byte()]).unwrap();
        stream
    }

    fn open(&self) -> Result<Session<UnixStream>, SessionError> {
        let code = Measurement::new(TeeKind::Sgx, &CODE).unwrap();
        let policy = Policy::dev(Reference::Listed(vec![code]));
        let freshness = Freshness::Cached { age_max: DAY };
        let roots = self.roots.clone();
        let expect = Expect::attested(Role::KeyService, roots, policy, None, freshness);
        let local = &provider();
        connect(
            self.dial(),
            Local::Client(local),
            &expect,
            now(),
            &mut Randomness,
        )
    }

    /// Waits until as many sessions are open.
    fn until_open(&self, count: usize) {
        until(|| self.sessions.len() == count);
    }
}

/// Waits until it holds.
#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "it never held");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_answered(session: &mut Session<UnixStream>) -> bool {
    let asked = session.send(&Request::Inspect.encode());
    let heard = asked.and_then(|()| session.receive());
    heard.is_ok_and(|reply| matches!(Reply::decode(&reply), Ok(Reply::Inspection(_))))
}

#[test]
fn a_session_is_answered_until_it_closes() {
    let (scene, _front) = Scene::new(10);
    let mut session = scene.open().unwrap();
    assert!(is_answered(&mut session));
    assert!(is_answered(&mut session));
    session.send(b"not a request").unwrap();
    let reply = session.receive().unwrap();
    assert!(
        matches!(Reply::decode(&reply), Ok(Reply::Refused(refusal)) if refusal.code == "malformed")
    );
    assert!(is_answered(&mut session), "one bad message ends nothing");
    drop(session.close());
    scene.until_open(0);
}

#[test]
fn hostile_connections_end_alone() {
    let (scene, front) = Scene::new(100);
    let mut good = scene.open().unwrap();
    // Silent, rubbish, half of a TLS record, and one that goes away.
    let silent = scene.dial();
    let mut rubbish = scene.dial();
    rubbish.write_all(&[0x55; 4096]).unwrap();
    let mut half = scene.dial();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01])
        .unwrap();
    drop(scene.dial());
    // A record that announces more than TLS allows.
    let mut giant = scene.dial();
    giant.write_all(&[0x16, 0x03, 0x01, 0xff, 0xff]).unwrap();
    let mut answer = Vec::new();
    drop(rubbish.read_to_end(&mut answer));
    drop(giant.read_to_end(&mut answer));
    // The fault is for the session opened next, not for one of these that is late.
    let dialled = 6;
    until(|| front.begun.load(Ordering::SeqCst) == dialled);
    front.fault.store(true, Ordering::SeqCst);
    assert!(scene.open().is_err(), "that session's thread panicked");
    for _ in 0..5 {
        assert!(is_answered(&mut good));
        assert!(is_answered(&mut scene.open().unwrap()));
    }
    drop((silent, half, good));
    scene.until_open(0);
}

#[test]
fn a_message_that_announces_too_much_ends_its_session_and_no_other() {
    let (scene, _front) = Scene::new(100);
    let mut good = scene.open().unwrap();
    let mut flood = scene.open().unwrap();
    let long = vec![0; 2 * REQUEST_BYTES_MAX];
    drop(flood.send(&long));
    assert!(flood.receive().is_err());
    assert!(is_answered(&mut good));
}

#[test]
fn when_all_places_are_taken_the_longest_silent_session_gives_way() {
    let (scene, _front) = Scene::new(3);
    let mut first = scene.open().unwrap();
    let mut second = scene.open().unwrap();
    let mut third = scene.open().unwrap();
    assert!(is_answered(&mut first));
    assert!(is_answered(&mut third));
    let mut fourth = scene.open().unwrap();
    assert!(is_answered(&mut fourth));
    assert!(!is_answered(&mut second), "it was cut");
    assert!(is_answered(&mut first) && is_answered(&mut third));
    assert_eq!(scene.metrics.sessions_evicted.get(), 1);
}

#[test]
fn silent_connections_take_no_place_that_somebody_else_needs() {
    let (scene, _front) = Scene::new(4);
    let silent: Vec<_> = (0..50).map(|_| scene.dial()).collect();
    for _ in 0..5 {
        assert!(is_answered(&mut scene.open().unwrap()));
    }
    drop(silent);
}

#[test]
fn two_thousand_connections_are_open_and_the_next_is_served() {
    let (scene, _front) = Scene::new(2100);
    let idle = Mutex::new(Vec::new());
    let dialled = (0..2000).map(|_| UnixStream::connect(&scene.path));
    for stream in dialled {
        let Ok(mut stream) = stream else { break };
        if stream.write_all(&[Visit::Session.byte()]).is_err() {
            break;
        }
        lock(&idle).push(stream);
    }
    let count = lock(&idle).len();
    assert!(count > 300, "this machine allows few files: {count}");
    let mut session = scene.open().unwrap();
    assert!(is_answered(&mut session));
    lock(&idle).clear();
    drop(session);
    scene.until_open(0);
}
