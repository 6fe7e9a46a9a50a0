//! Gets and puts in memory next to Redis, directly and through a function.
//!
//! ```text
//! ours: get, put ─ Redis: GET, SET ─ by a function: get, put ─ whole requests ─ again         a slice each, in turns
//! ```
//!
//! The same 100 000 keys on both sides, evenly drawn, one caller and one connection. A ratio is the median of its
//! turns. A function's call makes 1000 of them in one instance and one request of the state.

use std::path::Path;

use anyhow::{Result, ensure};

use super::Effort;
use super::calls::{CALLS, Calls, KEYS, VALUES};
use super::draw::{Draw, key};
use super::files::Folder;
use super::place::{Disk, Place, roomy, things};
use super::redis::Redis;
use super::stores::{Client as _, Through};
use super::timed::{nothing, short, slice};
use crate::bars::{Bar, median, ratio};

/// For each size of value.
pub(super) fn against_redis(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let Some(mut redis) = Redis::start(folder)? else {
        let why = "redis-server is not installed: apt-get install redis-server";
        for what in ["hot get ÷ Redis GET", "memory put ÷ Redis SET"] {
            bars.push(Bar::missing(what.to_owned(), why));
        }
        return Ok(());
    };
    for value in VALUES {
        eprintln!("  next to Redis, {value} B");
        let rates = Rates::measured(&mut redis, folder, value, effort)?;
        rates.told(&redis.version, value, bars);
    }
    Ok(())
}

/// Calls a second, turn by turn.
#[derive(Default)]
struct Rates {
    gets: Vec<f64>,
    puts: Vec<f64>,
    function_gets: Vec<f64>,
    function_puts: Vec<f64>,
    requests_of_a_get: Vec<f64>,
    requests_of_a_put: Vec<f64>,
    redis_gets: Vec<f64>,
    redis_sets: Vec<f64>,
}

impl Rates {
    fn measured(redis: &mut Redis, folder: &Path, value: usize, effort: &Effort) -> Result<Self> {
        let (bytes, mut draw) = (vec![b'v'; value], Draw::new(3));
        redis.fill_many((0..KEYS).map(key), &bytes)?;
        let place = Place::on(Disk::Folder(Folder::new(folder)?), roomy())?;
        let state = place.open(&[])?;
        let mut calls = Calls::new(&state, things(), value)?;
        calls.fill(KEYS)?;
        let mut whole = Calls::new(&state, things(), value)?;
        let mut through = Through::new(folder, roomy(), value)?;
        through.fill(KEYS, &bytes)?;
        let (mut rates, span) = (Self::default(), effort.slice());
        for _ in 0..effort.turns() {
            rates.gets.push(calls.gets(span)?);
            let get = |redis: &mut Redis| {
                let found = redis.get(&key(draw.below(KEYS)))?;
                ensure!(found == Some(value), "redis lost a value");
                Ok(())
            };
            let rate = slice(redis, span, 16, get, nothing)?;
            rates.redis_gets.push(rate);
            let get = |through: &mut Through| through.read(&key(draw.below(KEYS)));
            let rate = slice(&mut through, span, CALLS, get, Through::end)?;
            rates.function_gets.push(rate);

            rates.puts.push(calls.puts(span)?);
            let set = |redis: &mut Redis| redis.set(&key(draw.below(KEYS)), &bytes);
            let rate = slice(redis, span, 16, set, nothing)?;
            rates.redis_sets.push(rate);
            let put = |through: &mut Through| through.update(&key(draw.below(KEYS)), &bytes);
            let rate = slice(&mut through, span, CALLS, put, Through::end)?;
            rates.function_puts.push(rate);

            let rate = slice(&mut whole, span, 16, Calls::request_of_a_get, nothing)?;
            rates.requests_of_a_get.push(rate);
            let rate = slice(&mut whole, span, 16, Calls::request_of_a_put, nothing)?;
            rates.requests_of_a_put.push(rate);
        }
        Ok(rates)
    }

    fn told(&self, version: &str, value: usize, bars: &mut Vec<Bar>) {
        let note = |ours: &[f64], theirs: &[f64], what: &str| {
            format!(
                "{}/s {what}; {}/s Redis {version}, appendfsync everysec, TCP loopback, one connection, no pipeline",
                short(median(ours.to_vec())),
                short(median(theirs.to_vec()))
            )
        };
        let direct = "from the memtable, in a request under way";
        let put = format!("in requests of {CALLS} puts, awaited; log written, not synced");
        let function = format!(
            "calls out of a guest, a fresh instance and a request of the state for every {CALLS}, awaited"
        );
        let whole = "whole requests, one after the other";
        let signed = "whole requests, one after the other: a signature each";
        let rows = [
            (
                "hot get ÷ Redis GET",
                &self.gets,
                &self.redis_gets,
                direct,
                Some(20.0),
            ),
            (
                "memory put ÷ Redis SET",
                &self.puts,
                &self.redis_sets,
                &put,
                Some(10.0),
            ),
            (
                "hot get through a function ÷ Redis GET",
                &self.function_gets,
                &self.redis_gets,
                &function,
                Some(5.0),
            ),
            (
                "memory put through a function ÷ Redis SET",
                &self.function_puts,
                &self.redis_sets,
                &function,
                Some(5.0),
            ),
            (
                "a request of one get ÷ Redis GET",
                &self.requests_of_a_get,
                &self.redis_gets,
                whole,
                None,
            ),
            (
                "a request of one put ÷ Redis SET",
                &self.requests_of_a_put,
                &self.redis_sets,
                signed,
                None,
            ),
        ];
        for (name, ours, theirs, what, target) in rows {
            let (name, found) = (format!("{name}, {value} B"), ratio(ours, theirs));
            let note = note(ours, theirs, what);
            bars.push(match target {
                Some(target) => Bar::at_least(name, found, target, note),
                None => Bar::told(name, found, "ratio", note),
            });
        }
    }
}
