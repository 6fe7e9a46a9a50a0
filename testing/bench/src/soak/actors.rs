//! Users, a stranger who sends bytes that nobody should take, and one who kills runtimes.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bield_end_to_end::{Answer, Letter, post};
use bield_sdk::{CallError, CallOptions, Randomness, Target, Tensor, now};

use super::Ledger;
use super::cast::Cast;

/// Refusals that honest users may get while runtimes are killed, full, or serve somebody alone.
const MAY_BE: [&str; 12] = [
    "runtime-lost",
    "restarting",
    "no-runtime",
    "queue-full",
    "queue-timeout",
    "timed-out",
    "busy",
    "instance-taken",
    "instance-in-use",
    "models-full",
    "no-lease",
    "key-service-unreachable",
];
/// What the stranger sends unaltered.
const HONEST: [&str; 2] = ["first", "again"];
/// How far an answer may be from the same engine's here, of the largest number: nothing is summed in another order.
const TOLERANCE: f32 = 1e-5;

/// Calls packages at random until told to stop, and compares.
pub(super) fn user(
    cast: &Cast,
    number: usize,
    seed: u64,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> Result<()> {
    let user = &cast.users[number];
    let mut dice = Dice(seed);
    let kind = user.name.split(' ').next().unwrap_or_default();
    let mut targets: Vec<Option<Target>> = cast.packages.iter().map(|_| None).collect();
    while !stop.load(Ordering::SeqCst) {
        if user.is_rare && !dice.one_in(4) {
            rest(Duration::from_millis(1000 + dice.below(8000)), stop);
            continue;
        }
        let package = dice.below(cast.packages.len() as u64) as usize;
        let (input, expected) = cast.question(package, dice.next());
        let target = match &targets[package] {
            Some(target) => target,
            None => targets[package].insert(user.person.target(&cast.packages[package])?),
        };
        let started = Instant::now();
        let called = call(target, user, input);
        ledger.ended(&user.name, started.elapsed());
        match called {
            Ok(answered) => {
                let values = answered.tensors[0].to_f32().unwrap_or_default();
                match is_same(&values, expected) {
                    true => ledger.count(format!("{kind}: answered")),
                    false => ledger.fault(format!("{}: a wrong answer", user.name)),
                }
            }
            Err(error) => {
                let code = error.code().unwrap_or("no code").to_owned();
                ledger.count(format!("{kind}: {code}"));
                if !MAY_BE.contains(&code.as_str()) {
                    ledger.fault(format!("{}: {error}", user.name));
                }
                rest(Duration::from_millis(20 + dice.below(200)), stop);
            }
        }
    }
    Ok(())
}

fn call(
    target: &Target,
    user: &super::cast::User,
    input: &Tensor,
) -> Result<bield_sdk::Answered, CallError> {
    let options = CallOptions {
        attempts_max: 1,
        waiting: &mut |_| {},
        clock: now,
    };
    let inputs = vec![input.clone()];
    target.call_with(
        &user.person.key,
        inputs,
        Vec::new(),
        options,
        &mut Randomness,
    )
}

fn is_same(values: &[f32], expected: &[f32]) -> bool {
    let most = expected.iter().fold(0_f32, |most, one| most.max(one.abs()));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * most;
    values.len() == expected.len() && values.iter().zip(expected).all(near)
}

/// Sends what must not be taken: noise, and honest requests cut, flipped and sent twice.
pub(super) fn stranger(cast: &Cast, seed: u64, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
    let mut dice = Dice(seed);
    let (user, url) = (&cast.users[0].person, &cast.deployment.url);
    let package = cast.packages.len() - 1;
    let to = user.key_configuration(&cast.packages[package])?;
    while !stop.load(Ordering::SeqCst) {
        let (input, expected) = cast.question(package, dice.next());
        let [letter, same] = Letter::seal_twice(&to, &user.key, vec![input.clone()], now())?;
        let mut bytes = letter.bytes.clone();
        let what = match dice.below(5) {
            0 => {
                bytes = (0..dice.below(100_000))
                    .map(|_| dice.next() as u8)
                    .collect();
                "noise"
            }
            1 => {
                bytes.truncate(dice.below(bytes.len() as u64) as usize);
                "cut"
            }
            2 => {
                bytes.extend((0..=dice.below(64)).map(|_| dice.next() as u8));
                "longer"
            }
            3 => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
                "flipped"
            }
            _ => "twice",
        };
        if what == "twice" {
            // The first may be lost with a runtime; then the second is the first.
            for (what, letter) in HONEST.into_iter().zip([letter, same]) {
                let answer = posted(url, &bytes, ledger)?;
                judge(letter, &answer, expected, what, ledger);
            }
        } else {
            let answer = posted(url, &bytes, ledger)?;
            judge(letter, &answer, expected, what, ledger);
        }
        rest(Duration::from_millis(50 + dice.below(400)), stop);
    }
    Ok(())
}

fn posted(url: &str, bytes: &[u8], ledger: &Ledger) -> Result<Answer> {
    let started = Instant::now();
    let answer = post(url, bytes).context("the gateway does not answer")?;
    ledger.ended("stranger", started.elapsed());
    Ok(answer)
}

/// What was altered is never answered; what was not is answered rightly or refused, and opens, however often it was sent.
fn judge(letter: Letter, answer: &Answer, expected: &[f32], what: &str, ledger: &Ledger) {
    if answer.status != 200 {
        ledger.count(format!("stranger: {what}: {}", word(answer)));
        return;
    }
    match letter.open(answer) {
        Ok(Ok(output)) => {
            let tensors = output
                .output()
                .map(|output| output.tensors)
                .unwrap_or_default();
            let values = tensors.first().and_then(Tensor::to_f32).unwrap_or_default();
            ledger.count(format!("stranger: {what}: answered"));
            let is_honest = HONEST.contains(&what);
            if !is_honest {
                ledger.fault(format!("stranger: {what}: it was answered"));
            } else if !is_same(&values, expected) {
                ledger.fault(format!("stranger: {what}: a wrong answer"));
            }
        }
        Ok(Err(refusal)) => ledger.count(format!("stranger: {what}: {}", refusal.code)),
        Err(error) if HONEST.contains(&what) => {
            ledger.fault(format!("stranger: {what}: it does not open: {error:#}"));
        }
        // Sealed for what those bytes were, which is not what this letter is.
        Err(_) => ledger.count(format!("stranger: {what}: sealed for somebody else")),
    }
}

fn word(answer: &Answer) -> String {
    match answer.status {
        200 => "sealed".to_owned(),
        status => format!("{status} {}", answer.code()),
    }
}

/// Kills a runtime now and then, or holds it still for a moment.
pub(super) fn killer(cast: &Cast, seed: u64, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
    let mut dice = Dice(seed);
    while !stop.load(Ordering::SeqCst) {
        rest(Duration::from_millis(3000 + dice.below(9000)), stop);
        let runtimes = cast.deployment.runtimes();
        let Some(victim) = runtimes.get(dice.below(runtimes.len().max(1) as u64) as usize) else {
            continue;
        };
        if dice.one_in(4) {
            signal("STOP", *victim);
            thread::sleep(Duration::from_millis(200 + dice.below(1500)));
            signal("CONT", *victim);
            ledger.count("killer: held still");
        } else {
            signal("KILL", *victim);
            ledger.count("killer: killed");
        }
    }
    Ok(())
}

/// The process may have ended meanwhile.
fn signal(name: &str, process: u32) {
    let _ = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .output();
}

/// Sleeps, but not beyond the end.
fn rest(span: Duration, stop: &AtomicBool) {
    let until = Instant::now() + span;
    while Instant::now() < until && !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20).min(span));
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_question_is_not_the_same() {
        assert!(is_same(&[0.5, 0.25], &[0.5, 0.25]));
        assert!(!is_same(&[0.5, 0.26], &[0.5, 0.25]));
        assert!(!is_same(&[0.5], &[0.5, 0.25]));
        assert!(!is_same(&[f32::NAN, 0.25], &[0.5, 0.25]));
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let asked = |seed| {
            let mut dice = Dice(seed);
            (0..100).map(|_| dice.below(8)).collect::<Vec<_>>()
        };
        assert_eq!(asked(1), asked(1));
        assert_ne!(asked(1), asked(2));
    }
}
