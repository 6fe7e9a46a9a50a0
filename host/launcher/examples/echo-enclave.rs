//! A stand-in for an enclave program, for tests of the host side: it speaks the door's protocol by hand
//! and answers each call with the call's own bytes. Words at the start of a call make it do other things:
//! `key:`, `member:` and `witness:` send the rest (its first byte is a digit, the number) to a peer;
//! `die:` ends it, with the rest as its last words on standard error; `nothing:` says that there is no answer;
//! `lie:` breaks the rules of the ring;
//! `stream:` answers in two parts, `first ` at once, and what the key service says to the rest; `cut:` ends it after a
//! first part; `parts:` answers 600 000 bytes 7 in parts, the later of them once others were taken; `ahead:` answers
//! 1 500 000 bytes 7 in parts, whatever is taken; `cancels:` says how many calls were cancelled;
//! `storage:` asks for the operations that follow, in the storage visit's own bytes, through one visit.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Digest;
use bield_protocol::call::Reply;
use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::status::{Metric, Status};
use bield_protocol::visit::Visit;
use bield_protocol::visit::storage::{Answer, Operation};
use bield_ring::{Consumer, Kind, Producer, Sender as Answers, Shared, Spin};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

type Takers = HashMap<u8, Arc<Mutex<Receiver<UnixStream>>>>;
type Offers = HashMap<u8, (Sender<UnixStream>, Arc<Mutex<Receiver<UnixStream>>>)>;

/// Said by its configuration.
static IN_PARTS: AtomicBool = AtomicBool::new(false);
static AHEAD: AtomicBool = AtomicBool::new(false);
static CUT: AtomicBool = AtomicBool::new(false);
static LIES: AtomicBool = AtomicBool::new(false);
/// Said by the host.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static CANCELS: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut delay = Duration::ZERO;
    let mut last_words = false;
    let kinds = [
        Visit::KeyService,
        Visit::Package,
        Visit::Storage,
        Visit::Member,
        Visit::Witness,
    ];
    let offers: Offers = kinds
        .map(|visit| (visit.byte(), channel()))
        .map(|(byte, (sender, receiver))| (byte, (sender, Arc::new(Mutex::new(receiver)))))
        .into();
    for visit in listener.incoming() {
        let mut visit = visit?;
        let (kind, file) = announced(&visit)?;
        match Visit::from_byte(kind) {
            Some(Visit::Configure) => (delay, last_words) = configure(visit, &offers)?,
            Some(Visit::Watch) => {
                let storage = Arc::clone(&offers[&Visit::Storage.byte()].1);
                std::thread::spawn(move || end(visit, last_words, &storage));
            }
            Some(Visit::Calls) => {
                let takers: Takers = offers
                    .iter()
                    .map(|(k, (_, r))| (*k, Arc::clone(r)))
                    .collect();
                let file = file.ok_or(io::ErrorKind::InvalidData)?;
                std::thread::spawn(move || serve_calls(visit, file, delay, &Arc::new(takers)));
            }
            Some(Visit::Session) => drop(std::thread::spawn(move || echo(visit))),
            Some(Visit::Status) => {
                let _ = visit.write_all(&status());
            }
            Some(_) => offers[&kind].0.send(visit).map_err(io::Error::other)?,
            None => {}
        }
    }
    Ok(())
}

/// The first byte of a visit, and the file that came with it.
fn announced(visit: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let into = &mut [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(visit, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((byte[0], file))
}

/// Waits for the launcher to let go, then stores last words if it was configured to, and ends.
fn end(mut watch: UnixStream, last_words: bool, storage: &Mutex<Receiver<UnixStream>>) {
    let _ = watch.read(&mut [0]);
    if last_words {
        let mut replace = b"\x05\x0alast-words\0\0\0\x03".to_vec();
        replace.extend(b"bye");
        let _ = take(storage).and_then(|visit| operate(visit, &replace));
    }
    std::process::exit(0);
}

/// `lies` claims the impossible in each feedback; `ahead` answers each call as `ahead:` does; `once=FILE` says ok if there is no FILE, and makes it, else writes `again` into it and says nothing more;
/// `in-parts` answers each call with `first `, then, once the host has the package of 32 bytes 7, with `last`; `cut` ends it
/// instead of the `last`; `delay=MS` slows calls down; `sick=WHY` ends it with that sentence soon after it said ok; `load` lists its files before it says ok; `last-words` stores something
/// before it ends; `refuse:WHY` refuses; `silent` ends without a word.
fn configure(mut visit: UnixStream, offers: &Offers) -> io::Result<(Duration, bool)> {
    let mut text = String::new();
    visit.read_to_string(&mut text)?;
    if text.starts_with("silent") {
        std::process::exit(3);
    }
    if let Some(why) = text.strip_prefix("refuse:") {
        visit.write_all(why.as_bytes())?;
        std::process::exit(2);
    }
    println!("configured with {} bytes", text.len());
    if let Some(file) = text.lines().find_map(|line| line.strip_prefix("once=")) {
        let is_first = !std::fs::exists(file)?;
        std::fs::write(file, if is_first { "" } else { "again" })?;
        if !is_first {
            loop {
                std::thread::park();
            }
        }
    }
    if text.lines().any(|line| line == "load") {
        let storage = Arc::clone(&offers[&Visit::Storage.byte()].1);
        std::thread::spawn(move || {
            operate(take(&storage)?, b"\x02")?;
            visit.write_all(b"ok\n")
        });
    } else {
        visit.write_all(b"ok\n")?;
    }
    let delay = text
        .lines()
        .find_map(|line| line.strip_prefix("delay=")?.parse().ok());
    if let Some(why) = text.lines().find_map(|line| line.strip_prefix("sick=")) {
        eprintln!("{why}");
        std::process::exit(1);
    }
    let says = |word: &str| text.lines().any(|line| line == word);
    AHEAD.store(says("ahead"), Ordering::Relaxed);
    CUT.store(says("cut"), Ordering::Relaxed);
    LIES.store(says("lies"), Ordering::Relaxed);
    IN_PARTS.store(says("in-parts") || says("cut"), Ordering::Relaxed);
    let last_words = says("last-words");
    Ok((Duration::from_millis(delay.unwrap_or(0)), last_words))
}

/// Reads calls out of one ring and answers each on a thread of its own into the other.
fn serve_calls(
    _open: UnixStream,
    file: OwnedFd,
    delay: Duration,
    takers: &Arc<Takers>,
) -> io::Result<()> {
    let [requests, answers] = bield_ring::open(file).map_err(io::Error::other)?;
    let mut requests = Consumer::new(requests, Spin::measured());
    let second = answers.clone();
    let answers = Arc::new(Answers::new(Producer::new(answers, Spin::measured())));
    let mut unfinished: HashMap<u64, Vec<u8>> = HashMap::new();
    loop {
        while !requests
            .wait(bield_ring::PARK_MAX)
            .map_err(io::Error::other)?
        {}
        let Some(frame) = requests.peek().map_err(io::Error::other)? else {
            continue;
        };
        let head = frame.head();
        match Kind::from_number(head.kind) {
            Some(Kind::Whole | Kind::Part | Kind::Last) => {
                frame.take(unfinished.entry(head.id).or_default());
            }
            Some(Kind::More) => {
                let mut bytes = Vec::new();
                frame.take(&mut bytes);
                let bytes = bytes.try_into().map(u64::from_le_bytes);
                TAKEN.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            }
            Some(Kind::Cancel) => {
                frame.skip();
                CANCELS.fetch_add(1, Ordering::Relaxed);
            }
            _ => frame.skip(),
        }
        if matches!(Kind::from_number(head.kind), Some(Kind::Whole | Kind::Last)) {
            let request = unfinished.remove(&head.id).unwrap_or_default();
            if request == b"lie:" {
                // A second producer on the same ring, which begins where the first one began: with a kind that is none.
                let mut liar = Producer::new(second.clone(), Spin::measured());
                let _ = liar.try_push(77, 0, &[0; 4096]);
                let _ = liar.try_push(77, 0, &[0; 4096]);
                liar.publish();
                // An honest answer after it would publish an honest end of the ring over the lie.
                continue;
            }
            let (answers, takers) = (Arc::clone(&answers), Arc::clone(takers));
            std::thread::spawn(move || call(request, head.id, delay, &answers, &takers));
        }
    }
}

/// Answers as `in-parts` and `cut` say.
fn answer_in_parts(id: u64, answers: &Answers<Shared>, offers: &Takers) {
    // Longer than any test waits.
    let deadline = Instant::now() + Duration::from_secs(600);
    let send = |bytes: &[u8], last| answers.send_part(id, bytes, last, deadline, || false);
    let _ = send(
        &Reply::Streamed(feedback(), b"first ".to_vec()).encode(),
        false,
    );
    let has_it = || {
        let offer = take(&offers[&Visit::Package.byte()]);
        let served = offer.and_then(|offer| converse(offer, &[&[7; 32]], false));
        served.is_ok_and(|served| served.len() > 8)
    };
    while !has_it() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    if CUT.load(Ordering::Relaxed) {
        std::process::exit(9)
    }
    let _ = send(b"last", true);
}

/// Sends some, waits until all of that was taken, then the rest.
fn answer_as_it_is_taken(id: u64, answers: &Answers<Shared>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let first = Reply::Streamed(feedback(), vec![7; 500_000]).encode();
    let _ = answers.send_part(id, &first, false, deadline, || false);
    while TAKEN.load(Ordering::Relaxed) < first.len() as u64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    match TAKEN.load(Ordering::Relaxed) == first.len() as u64 {
        true => drop(answers.send_part(id, &[7; 100_000], true, deadline, || false)),
        false => answers.cancel(id),
    }
}

/// Sends all of it, in two parts and an end.
fn answer_ahead(id: u64, answers: &Answers<Shared>) {
    let deadline = Instant::now() + Duration::from_secs(600);
    let first = Reply::Streamed(feedback(), vec![7; 500_000]).encode();
    let _ = answers.send_part(id, &first, false, deadline, || false);
    let _ = answers.send_part(id, &vec![7; 1_000_000], true, deadline, || false);
}

fn call(request: Vec<u8>, id: u64, delay: Duration, answers: &Answers<Shared>, offers: &Takers) {
    std::thread::sleep(delay);
    if IN_PARTS.load(Ordering::Relaxed) {
        return answer_in_parts(id, answers, offers);
    }
    if AHEAD.load(Ordering::Relaxed) {
        return answer_ahead(id, answers);
    }
    let split = request
        .iter()
        .position(|byte| *byte == b':')
        .map_or(0, |at| at + 1);
    let (word, rest) = request.split_at(split);
    let offered = |kind: Visit| take(&offers[&kind.byte()]);
    let to_peer = |kind: Visit| {
        let (number, words) = rest.split_first().unwrap_or((&b'0', &[]));
        converse(offered(kind)?, &[&[number.wrapping_sub(b'0')], words], true)
    };
    let answer = match word {
        b"die:" => {
            if !rest.is_empty() {
                eprintln!("{}", String::from_utf8_lossy(rest));
            }
            std::process::exit(9)
        }
        b"hang:" => loop {
            std::thread::park();
        },
        b"nothing:" => return answers.cancel(id),
        b"stream:" | b"cut:" => {
            let first = Reply::Streamed(feedback(), b"first ".to_vec()).encode();
            let deadline = Instant::now() + Duration::from_secs(20);
            let _ = answers.send_part(id, &first, false, deadline, || false);
            if word == b"cut:" {
                std::process::exit(9)
            }
            let rest = to_peer(Visit::KeyService).unwrap_or_default();
            let _ = answers.send_part(id, &rest, true, deadline, || false);
            return;
        }
        b"parts:" => return answer_as_it_is_taken(id, answers),
        b"ahead:" => return answer_ahead(id, answers),
        b"cancels:" => Ok(CANCELS.load(Ordering::Relaxed).to_string().into_bytes()),
        b"key:" => to_peer(Visit::KeyService),
        b"member:" => to_peer(Visit::Member),
        b"witness:" => to_peer(Visit::Witness),
        b"package:" => offered(Visit::Package).and_then(|offer| converse(offer, &[rest], false)),
        b"storage:" => offered(Visit::Storage).and_then(|offer| operate(offer, rest)),
        _ => Ok(request),
    };
    let answer = answer.unwrap_or_else(|error| format!("failed: {error}").into_bytes());
    let reply = Reply::Sealed(feedback(), answer).encode();
    let deadline = Instant::now() + Duration::from_secs(20);
    let _ = answers.send(id, &reply, deadline, || false);
}

/// Takes an offered visit.
fn take(offers: &Mutex<Receiver<UnixStream>>) -> io::Result<UnixStream> {
    let offers = offers.lock().unwrap_or_else(PoisonError::into_inner);
    offers
        .recv_timeout(Duration::from_secs(20))
        .map_err(io::Error::other)
}

/// Asks one operation after another, each after the answer to the one before; all answers together.
/// What is no operation is sent as it is, and what comes then is the rest.
fn operate(mut visit: UnixStream, mut operations: &[u8]) -> io::Result<Vec<u8>> {
    let mut answers = Vec::new();
    while !operations.is_empty() {
        let rest = operations;
        match Operation::read_from(&mut operations) {
            Ok(Some(operation)) => {
                operation.write_to(&mut visit)?;
                let answer = Answer::read_from(&operation, &mut visit)?;
                Answer::write(answer.status, &answer.bytes, &mut answers)?;
            }
            Ok(None) => {}
            Err(_) => {
                visit.write_all(rest)?;
                visit.read_to_end(&mut answers)?;
                return Ok(answers);
            }
        }
    }
    Ok(answers)
}

fn converse(mut offer: UnixStream, parts: &[&[u8]], half_close: bool) -> io::Result<Vec<u8>> {
    for part in parts {
        offer.write_all(part)?;
    }
    if half_close {
        offer.shutdown(Shutdown::Write)?;
    }
    let mut answer = Vec::new();
    offer.read_to_end(&mut answer)?;
    Ok(answer)
}

fn echo(mut visit: UnixStream) -> io::Result<()> {
    let mut outward = visit.try_clone()?;
    io::copy(&mut visit, &mut outward)?;
    outward.shutdown(Shutdown::Write)
}

fn status() -> Vec<u8> {
    let status = Status {
        program: "echo-enclave".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        // Nothing is measured here; a test sees what it was started with.
        measurement: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        simulated: true,
        hardening: vec![],
        missing: vec!["everything".to_owned()],
        in_flight: 0,
        served: 0,
        // Calls that were cancelled.
        refused: CANCELS.load(Ordering::Relaxed),
        resident: 0,
        state: "following".to_owned(),
        metrics: vec![
            Metric {
                name: "leases_total".to_owned(),
                value: 7,
            },
            Metric {
                name: "evil\nbield_keys_x{model=\"m\"}".to_owned(),
                value: 1,
            },
        ],
    };
    status.encode()
}

fn feedback() -> Feedback {
    if LIES.load(Ordering::Relaxed) {
        return Feedback {
            start: StartKind::Cold,
            lease_us: u64::MAX,
            open_us: u64::MAX,
            load_us: u64::MAX,
            run_us: u64::MAX,
            total_us: 0,
            resident: (0..64).map(|byte| Digest::from_bytes([byte; 32])).collect(),
            in_flight: u32::MAX,
            queue_us: u64::MAX,
            free_bytes: u64::MAX,
            engine: None,
            state: None,
        };
    }
    Feedback {
        start: StartKind::Hot,
        lease_us: 0,
        open_us: 0,
        load_us: 0,
        run_us: 1,
        total_us: 2,
        resident: vec![],
        in_flight: 1,
        queue_us: 0,
        free_bytes: 0,
        engine: None,
        state: None,
    }
}
