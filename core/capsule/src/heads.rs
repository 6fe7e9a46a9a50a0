//! A replica's answer to a nonce: the heads it holds (`spec/06 §9`).
//!
//! In: what a replica holds, and a caller's nonce. Out: signed pages in the order of writer ids. Always
//! true: a page is self-contained, its `after` and `more` say which writers it speaks about, so that
//! silence about a writer inside of that range means that the replica has nothing by it. What the
//! pages of several replicas prove is in [`crate::fresh`] and [`crate::resume_head`].
//!
//! Cost: 78 bytes a writer at most, 8192 writers a page.

use bield_envelope::{Digest, Statement, Time, wire};
use minicbor::{Decode, Encode};

use crate::{CapsuleName, Head, WriterId};

/// Most heads on one page: two thirds of a MiB.
pub const HEADS_MAX: usize = 8192;

/// Drawn by the caller, so that an answer cannot be older than the question.
pub type Nonce = [u8; 16];

/// One page of the heads that a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeadsStatement {
    /// Which capsule.
    #[n(0)]
    pub capsule: CapsuleName,
    /// The caller's nonce.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: Nonce,
    /// When, by the replica's clock.
    #[n(2)]
    pub at: Time,
    /// Heads of writers, ascending; the owner is not among them.
    #[cbor(n(3), decode_with = "wire::at_most::<HEADS_MAX, _, _>")]
    pub heads: Vec<Head>,
    /// The config chain's head.
    #[n(4)]
    pub config: Option<ConfigHead>,
    /// The page starts after this writer.
    #[n(5)]
    pub after: Option<WriterId>,
    /// There are writers after the last one of this page.
    #[n(6)]
    pub more: bool,
}

/// The newest record of the config chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConfigHead {
    /// Position.
    #[n(0)]
    pub seq: u64,
    /// Header hash there.
    #[n(1)]
    pub hash: Digest,
}

impl Statement for HeadsStatement {
    const DOMAIN: &'static str = "bield capsule heads v1";
    const BYTES_MAX: usize = 1 << 20;
}

impl HeadsStatement {
    /// Makes a page from the heads of writers that come after `after`, ascending; takes at most
    /// [`HEADS_MAX`] of them.
    #[must_use]
    pub fn page(
        capsule: CapsuleName,
        nonce: Nonce,
        at: Time,
        config: Option<Head>,
        after: Option<WriterId>,
        heads: impl IntoIterator<Item = Head>,
    ) -> Self {
        let mut rest = heads.into_iter();
        let heads: Vec<Head> = rest.by_ref().take(HEADS_MAX).collect();
        let more = rest.next().is_some();
        let config = config.map(|head| ConfigHead {
            seq: head.seq,
            hash: head.hash,
        });
        let page = Self {
            capsule,
            nonce,
            at,
            heads,
            config,
            after,
            more,
        };
        debug_assert!(page.is_well_formed());
        page
    }

    /// Whether heads ascend, come after `after`, and whether a page that promises more says where to go
    /// on (`spec/06 §9`).
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let ascending = self.heads.is_sorted_by(|a, b| a.writer < b.writer);
        let starts = match (self.after, self.heads.first()) {
            (Some(after), Some(first)) => after < first.writer,
            _ => true,
        };
        ascending && starts && !(self.more && self.heads.is_empty())
    }

    /// Whether the page speaks about `writer`: names its head, or says by silence that there is none.
    #[must_use]
    pub fn covers(&self, writer: &WriterId) -> bool {
        self.after.is_none_or(|after| after < *writer)
            && (!self.more || self.heads.last().is_some_and(|last| *writer <= last.writer))
    }

    /// The head it names for `writer`.
    #[must_use]
    pub fn head_of(&self, writer: &WriterId) -> Option<Head> {
        let at = self
            .heads
            .binary_search_by(|head| head.writer.cmp(writer))
            .ok()?;
        Some(self.heads[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(byte: u8) -> Head {
        Head {
            writer: WriterId::from_bytes([byte; 32]),
            seq: u64::MAX,
            hash: Digest::from_bytes([byte; 32]),
        }
    }

    fn page(after: Option<u8>, heads: &[u8]) -> HeadsStatement {
        HeadsStatement::page(
            CapsuleName::from_bytes([1; 32]),
            [2; 16],
            Time::from_millis(3),
            Some(head(9)),
            after.map(|byte| WriterId::from_bytes([byte; 32])),
            heads.iter().copied().map(head),
        )
    }

    #[test]
    fn a_full_page_fits_its_limit_and_survives_its_bytes() {
        let heads = (0..HEADS_MAX as u64 + 1).map(|n| {
            let mut writer = [0; 32];
            writer[..8].copy_from_slice(&n.to_be_bytes());
            Head {
                writer: WriterId::from_bytes(writer),
                ..head(1)
            }
        });
        let full = HeadsStatement::page(
            CapsuleName::from_bytes([1; 32]),
            [2; 16],
            Time::from_millis(u64::MAX),
            Some(head(9)),
            Some(WriterId::from_bytes([0; 32])),
            heads.skip(1).chain([head(0xff)]),
        );
        assert!(full.more && full.heads.len() == HEADS_MAX);
        let bytes = wire::encode(&full);
        assert_eq!(wire::decode(&bytes, HeadsStatement::BYTES_MAX), Ok(full));
    }

    #[test]
    fn a_page_speaks_about_its_range_only() {
        let all = page(None, &[3, 5]);
        let later = page(Some(3), &[5]);
        let first = HeadsStatement {
            more: true,
            ..all.clone()
        };
        let covers = |page: &HeadsStatement| {
            [2, 3, 4, 5, 6].map(|byte| page.covers(&WriterId::from_bytes([byte; 32])))
        };
        assert_eq!(covers(&all), [true; 5]);
        assert_eq!(covers(&later), [false, false, true, true, true]);
        assert_eq!(covers(&first), [true, true, true, true, false]);
        assert_eq!(all.head_of(&WriterId::from_bytes([5; 32])), Some(head(5)));
        assert_eq!(all.head_of(&WriterId::from_bytes([4; 32])), None);
    }

    #[test]
    fn a_page_out_of_order_or_without_end_is_not_well_formed() {
        let good = page(Some(2), &[3, 5]);
        assert!(good.is_well_formed());
        for bad in [
            HeadsStatement {
                heads: vec![head(5), head(3)],
                ..good.clone()
            },
            HeadsStatement {
                heads: vec![head(3), head(3)],
                ..good.clone()
            },
            HeadsStatement {
                after: Some(WriterId::from_bytes([3; 32])),
                ..good.clone()
            },
            HeadsStatement {
                heads: vec![],
                more: true,
                ..good
            },
        ] {
            assert!(!bad.is_well_formed());
        }
    }
}
