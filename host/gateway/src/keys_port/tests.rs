//! The ports of sessions: places, peers, silence, the end.

use std::net::SocketAddr;

use bield_launcher::Launch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn echo() -> Arc<Supervisor> {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    let launch = Launch {
        program: target.join("examples/echo-runtime"),
        ..Launch::default()
    };
    Arc::new(Supervisor::start(launch).unwrap())
}

fn limit(places: usize) -> Limit {
    Limit {
        places,
        per_peer: places,
        session_max: None,
        idle_max: WAIT,
    }
}

async fn port(sessions: &Sessions, limit: Limit) -> SocketAddr {
    let listener = private().await.unwrap();
    let address = listener.local_addr().unwrap();
    sessions.serve(listener, limit);
    address
}

/// Opens a session and hears its own byte back; `None` when it was closed.
async fn session(address: SocketAddr) -> Option<TcpStream> {
    spoken(TcpStream::connect(address).await.unwrap()).await
}

async fn spoken(mut stream: TcpStream) -> Option<TcpStream> {
    stream.write_all(b"x").await.ok()?;
    let heard = stream.read_u8();
    let heard = tokio::time::timeout(WAIT, heard).await.unwrap();
    heard.ok().map(|_| stream)
}

/// Opens a session from another address of this machine.
async fn session_from(local: &str, address: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    spoken(socket.connect(address).await.unwrap()).await
}

async fn until_there_is_a_place(address: SocketAddr) {
    let again = async {
        while session(address).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, again).await.unwrap();
}

async fn ends(stream: &mut TcpStream) {
    let end = tokio::time::timeout(WAIT, stream.read(&mut [0])).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_public_port_leaves_own_runtimes_their_places() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let public = port(&sessions, limit(2)).await;
    let private = port(&sessions, limit(1)).await;
    let held = [session(public).await, session(public).await];
    assert!(held.iter().all(Option::is_some));
    assert!(session(public).await.is_none(), "all places are taken");
    let own = session(private).await;
    assert!(own.is_some());
    let counts = sessions.counts();
    assert_eq!((counts.open, counts.begun, counts.refused_full), (3, 3, 1));
    drop(held);
    until_there_is_a_place(public).await;
    keys.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_holds_no_more_than_its_share() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let share = Limit {
        per_peer: 1,
        ..limit(4)
    };
    let address = port(&sessions, share).await;
    let _held = session_from("127.0.0.2", address).await.unwrap();
    assert!(session_from("127.0.0.2", address).await.is_none());
    assert!(session_from("127.0.0.3", address).await.is_some());
    assert_eq!(sessions.counts().refused_share, 1);
    keys.stop();
}

/// Connects from another address of this machine and says nothing.
async fn silent_from(local: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_full_of_silent_strangers_still_takes_a_newcomer_and_keeps_it() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let few = Limit {
        per_peer: 4,
        ..limit(32)
    };
    let address = port(&sessions, few).await;
    let mut crowd = Vec::new();
    for peer in 1..=8 {
        for _ in 0..4 {
            crowd.push(silent_from(&format!("127.0.1.{peer}"), address).await);
        }
    }
    while sessions.counts().open < 32 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut guest = session_from("127.0.2.1", address).await.unwrap();
    // Some more of the crowd's addresses come, and each finds room at the cost of the crowd alone.
    for peer in 1..=20 {
        crowd.push(silent_from(&format!("127.0.3.{peer}"), address).await);
    }
    while sessions.counts().begun < 32 + 1 + 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    guest = spoken(guest).await.unwrap();
    let second = session_from("127.0.2.2", address).await;
    assert!(second.is_some() && spoken(guest).await.is_some());
    let counts = sessions.counts();
    assert_eq!((counts.refused_full, counts.refused_share), (0, 0));
    assert_eq!(counts.gave_way, 22);
    keys.stop();
}

#[test]
fn one_peer_gets_a_sixteenth_and_never_less_than_a_company_needs() {
    use clap::Parser as _;
    let share = |more: &[&str]| {
        let words = ["bield-gateway", "--tee=x", "--key-service=a:1"];
        let arguments = Arguments::parse_from(words.iter().chain(more));
        Limits::of(&arguments).public.per_peer
    };
    assert_eq!(share(&["--workers=0"]), (4096 - 1) / 16);
    assert_eq!(share(&["--keys-sessions=100"]), 64);
    assert_eq!(share(&["--keys-peer-sessions=9"]), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_session_still_brings_its_answer() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let address = port(&sessions, limit(1)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let question = vec![7; 300_000];
    let mut answer = Vec::new();
    let (mut from, mut to) = stream.split();
    let ask = async {
        to.write_all(&question).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, heard) = tokio::join!(ask, from.read_to_end(&mut answer));
    heard.unwrap();
    assert!(answer == question);
    keys.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_cut_when_its_time_is_over_and_frees_its_place() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let short = Duration::from_millis(200);
    for cut in [
        Limit {
            session_max: Some(short),
            ..limit(1)
        },
        Limit {
            idle_max: short,
            ..limit(1)
        },
    ] {
        let address = port(&sessions, cut).await;
        ends(&mut session(address).await.unwrap()).await;
        until_there_is_a_place(address).await;
    }
    keys.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_program_ends_frees_its_place_though_the_peer_stays() {
    let keys = echo();
    let address = port(&Sessions::new(&keys), limit(1)).await;
    let _silent = session(address).await.unwrap();
    keys.enclave().unwrap().kill();
    until_there_is_a_place(address).await;
    keys.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_takes_no_more_and_lets_speaking_sessions_finish() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let address = port(&sessions, limit(3)).await;
    let mut speaking = session(address).await.unwrap();
    let mut silent = session(address).await.unwrap();
    let mut mute = TcpStream::connect(address).await.unwrap();
    while sessions.counts().open < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sessions.take_no_more();
    ends(&mut mute).await;
    let talk = async {
        // Longer than silence is borne.
        for _ in 0..25 {
            speaking.write_all(b"x").await.unwrap();
            assert_eq!(speaking.read_u8().await.unwrap(), b'x');
            tokio::time::sleep(DRAINING_IDLE_MAX / 20).await;
        }
    };
    tokio::join!(talk, ends(&mut silent));
    speaking.shutdown().await.unwrap();
    tokio::time::timeout(WAIT, sessions.end()).await.unwrap();
    // The port itself is closed by now or about to be.
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, closed).await.unwrap();
    keys.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_waits_for_an_answer_that_is_owed() {
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let address = port(&sessions, limit(1)).await;
    let mut asking = session(address).await.unwrap();
    // A stopped program owes its answer for as long as the test wants.
    let pid = keys.enclave().unwrap().pid();
    signal(pid, rustix::process::Signal::STOP);
    asking.write_all(b"?").await.unwrap();
    tokio::time::sleep(DRAINING_IDLE_MAX / 10).await;
    sessions.take_no_more();
    tokio::time::sleep(DRAINING_IDLE_MAX * 2).await;
    signal(pid, rustix::process::Signal::CONT);
    let answer = tokio::time::timeout(WAIT, asking.read_u8()).await.unwrap();
    assert_eq!(answer.unwrap(), b'?');
    // And then it is soon over.
    ends(&mut asking).await;
    keys.stop();
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silent_sessions_cost_no_threads() {
    const MANY: usize = 400;
    let keys = echo();
    let sessions = Sessions::new(&keys);
    let address = port(&sessions, limit(MANY)).await;
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    while sessions.counts().open < MANY {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(threads() <= before + 2, "{} after {before}", threads());
    // The last one is served as the first would be.
    let last = held.pop().unwrap();
    assert!(spoken(last).await.is_some());
    keys.stop();
}
