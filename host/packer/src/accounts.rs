//! Who used how much of the pool: memory over time, split exactly.
//!
//! A worker's memory over time goes in equal parts to the requests that are there, to their packages and their
//! callers; while none is there, to the packages it holds, by size, and to no caller; while it holds none, to nobody.
//!
//! Always true, to the byte and microsecond: packages, unused and other packages sum to the whole; so do callers, idle
//! and other callers.

use std::collections::BTreeMap;

use bield_envelope::Digest;

use crate::event::Caller;

/// Packages, and callers, that have an account of their own; when there are more, the smallest ones are put together.
const ACCOUNTS_MAX: usize = 4096;
/// As many at once, so that the search is paid once for all of them.
const FOLDED: usize = ACCOUNTS_MAX / 8;

/// Bytes times microseconds.
pub(crate) type ByteMicros = u128;

#[derive(Default, Clone)]
pub(crate) struct Accounts {
    pub(crate) total: ByteMicros,
    /// While nobody was there.
    pub(crate) idle: ByteMicros,
    /// While nobody was there and nothing was held.
    pub(crate) unused: ByteMicros,
    /// Time that workers existed, in microseconds.
    pub(crate) worker_us: u128,
    pub(crate) packages: BTreeMap<Digest, ByteMicros>,
    pub(crate) callers: BTreeMap<Caller, ByteMicros>,
    pub(crate) other_packages: ByteMicros,
    pub(crate) other_callers: ByteMicros,
}

impl Accounts {
    /// Books `bytes` for `micros`: to `there`, the requests at the worker, else to `held`, packages with their sizes.
    pub(crate) fn book(
        &mut self,
        bytes: u64,
        micros: u64,
        there: &[(Digest, Caller)],
        held: &[(Digest, u64)],
    ) {
        let amount = u128::from(bytes) * u128::from(micros);
        self.total += amount;
        self.worker_us += u128::from(micros);
        if !there.is_empty() {
            let weights = there.iter().map(|_| 1);
            for (part, (package, caller)) in split(amount, weights).zip(there) {
                add(&mut self.packages, &mut self.other_packages, *package, part);
                add(&mut self.callers, &mut self.other_callers, *caller, part);
            }
            return;
        }
        self.idle += amount;
        if held.is_empty() {
            self.unused += amount;
            return;
        }
        // A package of unknown size counts as a byte, so that something is divided by.
        let weights = held.iter().map(|(_, bytes)| (*bytes).max(1));
        for (part, (package, _)) in split(amount, weights).zip(held) {
            add(&mut self.packages, &mut self.other_packages, *package, part);
        }
    }
}

impl Accounts {
    /// Adds what was booked at one byte, at `bytes`.
    pub(crate) fn merge(&mut self, other: Accounts, bytes: u64) {
        let bytes = u128::from(bytes);
        self.total += other.total * bytes;
        self.idle += other.idle * bytes;
        self.unused += other.unused * bytes;
        self.worker_us += other.worker_us;
        self.other_packages += other.other_packages * bytes;
        self.other_callers += other.other_callers * bytes;
        for (package, part) in other.packages {
            add(
                &mut self.packages,
                &mut self.other_packages,
                package,
                part * bytes,
            );
        }
        for (caller, part) in other.callers {
            add(
                &mut self.callers,
                &mut self.other_callers,
                caller,
                part * bytes,
            );
        }
    }
}

fn add<K: Ord + Copy>(
    accounts: &mut BTreeMap<K, ByteMicros>,
    others: &mut ByteMicros,
    whose: K,
    amount: ByteMicros,
) {
    if accounts.len() >= ACCOUNTS_MAX && !accounts.contains_key(&whose) {
        let mut all: Vec<_> = accounts.iter().map(|(whose, had)| (*had, *whose)).collect();
        all.sort_unstable();
        for (had, whose) in all.into_iter().take(FOLDED) {
            accounts.remove(&whose);
            *others += had;
        }
    }
    *accounts.entry(whose).or_default() += amount;
}

/// Parts of `amount` by weight that sum to it: each is what is left, divided by the weight that is left.
fn split(
    amount: ByteMicros,
    weights: impl Iterator<Item = u64> + Clone,
) -> impl Iterator<Item = ByteMicros> {
    let mut weight_left: u128 = weights.clone().map(u128::from).sum();
    let mut left = amount;
    weights.map(move |weight| {
        let weight = u128::from(weight);
        let part = match left.checked_mul(weight) {
            Some(product) => product / weight_left,
            None => left / weight_left * weight,
        };
        left -= part;
        weight_left -= weight;
        // The last takes all that is left.
        if weight_left == 0 {
            part + std::mem::take(&mut left)
        } else {
            part
        }
    })
}

/// Gigabyte-seconds: 10⁹ bytes for a second.
pub(crate) fn gb_s(amount: ByteMicros) -> f64 {
    amount as f64 / 1e15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_whole_whatever_the_weights() {
        for amount in [0, 1, 7, 1_000_003, u128::from(u64::MAX) * 1_000_000_007] {
            for weights in [
                vec![1],
                vec![1, 1, 1],
                vec![3, 1 << 40, 5],
                vec![u64::MAX, u64::MAX],
            ] {
                let parts: Vec<_> = split(amount, weights.iter().copied()).collect();
                assert_eq!(parts.iter().sum::<u128>(), amount, "{weights:?}");
            }
        }
    }

    #[test]
    fn time_in_flight_is_the_callers_and_the_rest_the_residents() {
        let (a, b) = (Digest::of("test", &[b"a"]), Digest::of("test", &[b"b"]));
        let mut accounts = Accounts::default();
        accounts.book(10, 3, &[(a, Caller(1)), (b, Caller(2))], &[(a, 5)]);
        accounts.book(10, 4, &[], &[(a, 30), (b, 10)]);
        accounts.book(10, 5, &[], &[]);
        assert_eq!(
            (accounts.packages[&a], accounts.packages[&b]),
            (15 + 30, 15 + 10)
        );
        assert_eq!(
            (accounts.callers[&Caller(1)], accounts.callers[&Caller(2)]),
            (15, 15)
        );
        assert_eq!(
            (accounts.total, accounts.idle, accounts.unused),
            (120, 90, 50)
        );
    }

    #[test]
    fn of_more_callers_than_accounts_the_smallest_share_one() {
        let mut accounts = Accounts::default();
        let package = Digest::of("test", &[b"a"]);
        for caller in 0..ACCOUNTS_MAX as u64 + 10 {
            let bytes = if caller < 10 { 2 } else { 1 };
            accounts.book(bytes, 3, &[(package, Caller(caller))], &[]);
        }
        accounts.book(7, 3, &[(package, Caller(u64::MAX))], &[]);
        assert!(accounts.callers.len() <= ACCOUNTS_MAX);
        assert_eq!(accounts.callers[&Caller(u64::MAX)], 21, "late, but large");
        assert!((0..10).all(|caller| accounts.callers[&Caller(caller)] == 6));
        let others = accounts.other_callers;
        assert_eq!(others, 3 * FOLDED as u128);
        assert_eq!(
            accounts.callers.values().sum::<u128>() + others,
            accounts.total
        );
    }
}
