//! A replica in this process, as honest as a test wants it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bield_capsule::{
    Acknowledgement, HeadsStatement, Kept, Metadata, RECORD_BYTES_MAX, Received, WriterId,
};
use bield_envelope::{Seeded, Signed, SigningKey};

use crate::capsule::frames;
use crate::now;

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Honest,
    /// Signs acknowledgements with another key.
    Forges,
    /// Acknowledges a record that was never sent.
    Invents,
    /// Answers after this many milliseconds.
    Slow(u64),
    /// Answers every nonce with the first one.
    Replays,
    /// Flips a bit in every record it gives out, and repairs nothing.
    Alters,
    /// Names heads and gives out nothing.
    Withholds,
    /// Closes every connection.
    Dead,
    /// Takes records, and closes the connection instead of acknowledging them.
    Mute,
    /// Takes no records.
    Refuses,
    /// Says that it misses everything before what it is sent, once.
    Forgets,
}

pub(super) struct Fake {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    key: SigningKey,
    mode: Mode,
    metadata: Option<Metadata>,
    chains: BTreeMap<WriterId, Vec<Received>>,
    nonce: Option<[u8; 16]>,
}

impl Fake {
    pub(super) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            key: SigningKey::generate(&mut Seeded::new(seed)),
            mode: Mode::Honest,
            metadata: None,
            chains: BTreeMap::new(),
            nonce: None,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&stream.unwrap(), &state));
            }
        });
        Self { url, state }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// Loses the newest `count` records of every chain but the owner's.
    pub(super) fn roll_back(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        let owner = state.metadata.as_ref().unwrap().owner_id();
        for (writer, chain) in &mut state.chains {
            if *writer != owner {
                chain.truncate(chain.len().saturating_sub(count));
            }
        }
    }

    /// Loses the newest `count` records of the owner's chain.
    pub(super) fn roll_back_owner(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        let owner = state.metadata.as_ref().unwrap().owner_id();
        let chain = state.chains.get_mut(&owner).unwrap();
        chain.truncate(chain.len() - count);
    }

    /// The newest record of every chain but the owner's.
    pub(super) fn newest(&self) -> Vec<Received> {
        let state = self.state.lock().unwrap();
        let owner = state.metadata.as_ref().unwrap().owner_id();
        let others = state.chains.iter().filter(|(writer, _)| **writer != owner);
        others
            .filter_map(|(_, chain)| chain.last().cloned())
            .collect()
    }

    /// Whether it has this record, byte for byte.
    pub(super) fn has(&self, record: &Received) -> bool {
        let state = self.state.lock().unwrap();
        let mut records = state.chains.values().flatten();
        records.any(|have| have.as_bytes() == record.as_bytes())
    }

    /// How many records it has that are not the owner's.
    pub(super) fn records(&self) -> usize {
        let state = self.state.lock().unwrap();
        let owner = state.metadata.as_ref().unwrap().owner_id();
        let others = state.chains.iter().filter(|(writer, _)| **writer != owner);
        others.map(|(_, chain)| chain.len()).sum()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            let (name, value) = header.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mode = state.lock().unwrap().mode;
        match mode {
            Mode::Dead => return,
            Mode::Slow(millis) => thread::sleep(Duration::from_millis(millis)),
            _ => {}
        }
        let (status, answer) = state.lock().unwrap().answer(method, path, &body);
        if mode == Mode::Mute && method == "POST" {
            return;
        }
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nbield-more: false\r\n\r\n",
            answer.len()
        );
        let mut out = stream;
        if out.write_all(&[head.as_bytes(), &answer].concat()).is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let parts: Vec<_> = path.split('/').skip(2).collect();
        match (method, parts.as_slice()) {
            ("GET", ["identity"]) => {
                let principal = self.key.principal().to_string();
                (
                    200,
                    serde_json::json!({ "principal": principal })
                        .to_string()
                        .into(),
                )
            }
            ("PUT", ["capsules", _]) => {
                self.metadata = Some(Metadata::decode(body).unwrap());
                (201, Vec::new())
            }
            ("GET", ["capsules", _]) => {
                let metadata = self.metadata.as_ref().unwrap();
                (200, metadata.as_bytes().to_vec())
            }
            ("POST", ["capsules", _, "records"]) if self.mode == Mode::Refuses => {
                let refusal =
                    serde_json::json!({ "error": "full", "message": "full", "retry": true });
                (507, refusal.to_string().into())
            }
            ("POST", ["capsules", _, "records"]) => self.append(body),
            ("GET", ["capsules", _, "heads"]) => (200, self.heads(query("nonce").unwrap())),
            ("GET", ["capsules", _, "records", writer]) => {
                let writer = writer.parse().unwrap();
                let from: usize = query("from").unwrap().parse().unwrap();
                let to = query("to").map_or(usize::MAX, |to| to.parse().unwrap());
                (200, self.page(&writer, from, to))
            }
            _ => (404, Vec::new()),
        }
    }

    fn append(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        let mut newest = BTreeMap::new();
        for bytes in frames::split(body, RECORD_BYTES_MAX).unwrap() {
            let record = Received::decode(bytes.to_vec()).unwrap();
            let head = record.head();
            let chain = self.chains.entry(head.writer).or_default();
            let have = chain.len() as u64;
            if have < head.seq || self.mode == Mode::Forgets {
                if self.mode == Mode::Forgets {
                    self.mode = Mode::Honest;
                    chain.truncate(1);
                }
                let have = (chain.len() as u64).checked_sub(1);
                let refusal = serde_json::json!({ "error": "gap", "message": "a gap", "retry": true, "have": have });
                return (409, refusal.to_string().into());
            }
            if have == head.seq {
                chain.push(record);
            }
            newest.insert(head.writer, head);
        }
        let capsule = self.metadata.as_ref().unwrap().name();
        let mut answer = Vec::new();
        for mut head in newest.into_values() {
            if self.mode == Mode::Invents {
                head.seq += 1000;
            }
            let said = Acknowledgement::of(capsule, head, Kept::Synced, now());
            let other = SigningKey::generate(&mut Seeded::new(99));
            let key = if self.mode == Mode::Forges {
                &other
            } else {
                &self.key
            };
            frames::push(&mut answer, Signed::sign(key, said).as_bytes());
        }
        (200, answer)
    }

    fn heads(&mut self, nonce: &str) -> Vec<u8> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(nonce, &mut bytes).unwrap();
        if self.mode == Mode::Replays {
            bytes = *self.nonce.get_or_insert(bytes);
        }
        let metadata = self.metadata.as_ref().unwrap();
        let (owner, name) = (metadata.owner_id(), metadata.name());
        let head = |chain: &Vec<Received>| Some(chain.last()?.head());
        let config = self.chains.get(&owner).and_then(head);
        let others = self.chains.iter().filter(|(writer, _)| **writer != owner);
        let heads = others.filter_map(|(_, chain)| head(chain));
        let page = HeadsStatement::page(name, bytes, now(), config, None, heads);
        Signed::sign(&self.key, page).as_bytes().to_vec()
    }

    fn page(&self, writer: &WriterId, from: usize, to: usize) -> Vec<u8> {
        let mut answer = Vec::new();
        let owner = self.metadata.as_ref().unwrap().owner_id();
        if self.mode == Mode::Withholds && *writer != owner {
            return answer;
        }
        let chain = self.chains.get(writer).map_or(&[][..], Vec::as_slice);
        for record in chain
            .iter()
            .skip(from)
            .take(to.saturating_sub(from).saturating_add(1))
        {
            let mut bytes = record.as_bytes().to_vec();
            if self.mode == Mode::Alters && *writer != owner {
                // In the signature: nothing but it tells.
                let at = record.header_bytes().len();
                bytes[at] ^= 1;
            }
            frames::push(&mut answer, &bytes);
        }
        answer
    }
}
