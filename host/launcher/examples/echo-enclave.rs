//! A stand-in for an enclave program, for tests of the host side: it speaks the door's protocol by hand
//! and answers each call with the call's own bytes. Words at the start of a call make it do other things.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bield_protocol::call::Reply;
use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::status::Status;
use bield_protocol::visit::{Visit, storage};

type Offers = HashMap<u8, (Sender<UnixStream>, Arc<Mutex<Receiver<UnixStream>>>)>;

fn main() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut delay = Duration::ZERO;
    let offers: Offers = [Visit::KeyService, Visit::Package, Visit::Storage]
        .map(|visit| (visit.byte(), channel()))
        .map(|(byte, (sender, receiver))| (byte, (sender, Arc::new(Mutex::new(receiver)))))
        .into();
    for visit in listener.incoming() {
        let mut visit = visit?;
        let mut kind = [0];
        visit.read_exact(&mut kind)?;
        match Visit::from_byte(kind[0]) {
            Some(Visit::Configure) => delay = configure(visit, &offers)?,
            Some(Visit::Watch) => drop(std::thread::spawn(move || {
                let _ = visit.read(&mut [0]);
                std::process::exit(0);
            })),
            Some(Visit::Call) => {
                let offers = offers
                    .iter()
                    .map(|(k, (_, r))| (*k, Arc::clone(r)))
                    .collect();
                std::thread::spawn(move || call(visit, delay, &offers));
            }
            Some(Visit::Session) => drop(std::thread::spawn(move || echo(visit))),
            Some(Visit::Status) => {
                let _ = visit.write_all(&status());
            }
            Some(_) => offers[&kind[0]].0.send(visit).map_err(io::Error::other)?,
            None => {}
        }
    }
    Ok(())
}

/// `delay=MS` slows calls down; `load` reads the blob before it says ok; `refuse:WHY` refuses; `silent` ends without a word.
fn configure(mut visit: UnixStream, offers: &Offers) -> io::Result<Duration> {
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
    if text.lines().any(|line| line == "load") {
        let blobs = Arc::clone(&offers[&Visit::Storage.byte()].1);
        std::thread::spawn(move || {
            let blobs = blobs.lock().unwrap_or_else(PoisonError::into_inner);
            let offer = blobs
                .recv_timeout(Duration::from_secs(20))
                .map_err(io::Error::other)?;
            converse(offer, &[&[storage::LOAD]], false)?;
            visit.write_all(b"ok\n")
        });
    } else {
        visit.write_all(b"ok\n")?;
    }
    let delay = text
        .lines()
        .find_map(|line| line.strip_prefix("delay=")?.parse().ok());
    Ok(Duration::from_millis(delay.unwrap_or(0)))
}

fn call(
    mut visit: UnixStream,
    delay: Duration,
    offers: &HashMap<u8, Arc<Mutex<Receiver<UnixStream>>>>,
) {
    let mut request = Vec::new();
    if visit.read_to_end(&mut request).is_err() {
        return;
    }
    std::thread::sleep(delay);
    let split = request
        .iter()
        .position(|byte| *byte == b':')
        .map_or(0, |at| at + 1);
    let (word, rest) = request.split_at(split);
    let take = |kind: Visit| -> io::Result<UnixStream> {
        let offers = offers[&kind.byte()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        offers
            .recv_timeout(Duration::from_secs(20))
            .map_err(io::Error::other)
    };
    let answer = match word {
        b"die:" => std::process::exit(9),
        b"hang:" => loop {
            std::thread::park();
        },
        b"key:" => take(Visit::KeyService).and_then(|offer| converse(offer, &[rest], true)),
        b"package:" => take(Visit::Package).and_then(|offer| converse(offer, &[rest], false)),
        b"load:" => {
            take(Visit::Storage).and_then(|offer| converse(offer, &[&[storage::LOAD]], false))
        }
        b"store:" => take(Visit::Storage).and_then(|offer| {
            let length = (rest.len() as u64).to_be_bytes();
            converse(offer, &[&[storage::STORE], &length, rest], false)
        }),
        _ => Ok(request),
    };
    let answer = answer.unwrap_or_else(|error| format!("failed: {error}").into_bytes());
    let _ = visit.write_all(&Reply::Sealed(feedback(), answer).encode());
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
        measurement: "none".to_owned(),
        simulated: true,
        hardening: vec![],
        missing: vec!["everything".to_owned()],
        in_flight: 0,
        served: 0,
        refused: 0,
        resident: 0,
    };
    status.encode()
}

fn feedback() -> Feedback {
    Feedback {
        start: StartKind::Hot,
        lease_us: 0,
        open_us: 0,
        load_us: 0,
        run_us: 1,
        total_us: 2,
        resident: vec![],
        in_flight: 1,
    }
}
