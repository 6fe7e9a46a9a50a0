//! Redis on the loopback, as people run it: an append-only file, synced every second.
//!
//! In: keys and values. Out: what it answered, checked. Always true: one connection, one question at a time, unless a
//! table is filled; a client of a few lines over a plain socket, so that nothing of it is what is measured.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::capsule::peers::{Server, program};
use crate::capsule::place::free_port;

/// A `redis-server` and one connection to it.
pub(super) struct Redis {
    pub(super) version: String,
    stream: TcpStream,
    question: Vec<u8>,
    answer: Vec<u8>,
    /// Where in `answer` the next reply begins.
    at: usize,
    /// Whether keys also go to a sorted set, to be scanned.
    indexed: bool,
    _server: Server,
    _data: TempDir,
}

impl Redis {
    /// Starts one; `None` when it is not installed.
    pub(super) fn start(folder: &Path) -> Result<Option<Self>> {
        let (data, port) = (TempDir::new_in(folder)?, free_port()?);
        let mut command = program("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--save", "", "--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(data.path());
        let Some(server) = Server::start(&mut command, port)? else {
            return Ok(None);
        };
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let said = program("redis-server").arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        let version = said.split("v=").nth(1);
        let version = version.and_then(|rest| rest.split(' ').next());
        Ok(Some(Self {
            version: version.unwrap_or("of an unknown version").to_owned(),
            stream,
            question: Vec::new(),
            answer: Vec::new(),
            at: 0,
            indexed: false,
            _server: server,
            _data: data,
        }))
    }

    /// `GET`: whether there was a value.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        self.ask(&[b"GET", key])?;
        self.send()?;
        self.bulk()
    }

    /// `SET`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.ask(&[b"SET", key, value])?;
        self.send()?;
        self.ok()
    }

    /// `SET` of many, without waiting for each.
    pub(super) fn fill_many<K: AsRef<[u8]>>(
        &mut self,
        keys: impl Iterator<Item = K>,
        value: &[u8],
    ) -> Result<()> {
        let mut asked = 0;
        for key in keys {
            self.ask(&[b"SET", key.as_ref(), value])?;
            asked += 1;
            if asked == PIPELINE {
                self.answered(&mut asked)?;
            }
        }
        self.answered(&mut asked)
    }

    /// A `SET` of a new key, which also goes to the sorted set where there is one.
    pub(super) fn set_new(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if !self.indexed {
            return self.set(key, value);
        }
        self.ask(&[b"SET", key, value])?;
        self.ask(&[b"ZADD", INDEX, b"0", key])?;
        self.send()?;
        self.ok()?;
        self.number().map(drop)
    }

    /// Puts all keys into the sorted set.
    pub(super) fn index<K: AsRef<[u8]>>(&mut self, keys: impl Iterator<Item = K>) -> Result<()> {
        self.indexed = true;
        let mut asked = 0;
        for key in keys {
            self.ask(&[b"ZADD", INDEX, b"0", key.as_ref()])?;
            asked += 1;
            if asked == PIPELINE {
                self.send()?;
                (0..asked).try_for_each(|_| self.number().map(drop))?;
                asked = 0;
            }
        }
        self.send()?;
        (0..asked).try_for_each(|_| self.number().map(drop))
    }

    /// As many values from a key on as there are, at most `count`: keys from the sorted set, then their values.
    pub(super) fn page(&mut self, from: &[u8], count: usize) -> Result<usize> {
        let least = [b"[", from].concat();
        let limit = count.to_string();
        self.ask(&[
            b"ZRANGEBYLEX",
            INDEX,
            &least,
            b"+",
            b"LIMIT",
            b"0",
            limit.as_bytes(),
        ])?;
        self.send()?;
        let found = self.head(b'*')?;
        let mut keys = Vec::with_capacity(found + 1);
        keys.push(b"MGET".to_vec());
        for _ in 0..found {
            let length = self.head(b'$')?;
            keys.push(self.bytes(length + 2)?[..length].to_vec());
        }
        if found == 0 {
            return Ok(0);
        }
        let words: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.ask(&words)?;
        self.send()?;
        let values = self.head(b'*')?;
        for _ in 0..values {
            self.bulk()?.context("a key of the index has no value")?;
        }
        Ok(values)
    }

    fn answered(&mut self, asked: &mut usize) -> Result<()> {
        self.send()?;
        for _ in 0..core::mem::take(asked) {
            self.ok()?;
        }
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<()> {
        write!(self.question, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.question, "${}\r\n", word.len())?;
            self.question.extend_from_slice(word);
            self.question.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.question)?;
        self.question.clear();
        Ok(())
    }

    fn ok(&mut self) -> Result<()> {
        let line = self.line()?;
        ensure!(
            line == b"+OK",
            "redis refused: {}",
            String::from_utf8_lossy(&line)
        );
        Ok(())
    }

    fn number(&mut self) -> Result<usize> {
        self.head(b':')
    }

    fn bulk(&mut self) -> Result<Option<usize>> {
        let line = self.line()?;
        if line == b"$-1" {
            return Ok(None);
        }
        let length = count(&line, b'$')?;
        self.bytes(length + 2)?;
        Ok(Some(length))
    }

    fn head(&mut self, kind: u8) -> Result<usize> {
        let line = self.line()?;
        count(&line, kind)
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            let rest = &self.answer[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest[..end.saturating_sub(1)].to_vec();
                self.at += end + 1;
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        while self.answer.len() - self.at < count {
            self.more()?;
        }
        self.at += count;
        Ok(&self.answer[self.at - count..self.at])
    }

    fn more(&mut self) -> Result<()> {
        if self.at == self.answer.len() {
            self.answer.clear();
            self.at = 0;
        }
        let there = self.answer.len();
        self.answer.resize(there + CHUNK, 0);
        let got = self.stream.read(&mut self.answer[there..])?;
        self.answer.truncate(there + got);
        if got == 0 {
            bail!("redis hung up");
        }
        Ok(())
    }
}

fn count(line: &[u8], kind: u8) -> Result<usize> {
    let digits = line.split_first().filter(|(first, _)| **first == kind);
    let digits = digits.and_then(|(_, digits)| core::str::from_utf8(digits).ok());
    let said = || format!("redis said {}", String::from_utf8_lossy(line));
    digits.and_then(|text| text.parse().ok()).with_context(said)
}

/// `SET`s that are sent before the first answer is read, to fill a table.
const PIPELINE: usize = 512;
const INDEX: &[u8] = b"_index";
const CHUNK: usize = 16 << 10;
