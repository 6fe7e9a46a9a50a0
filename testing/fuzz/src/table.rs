//! Tables: an entry has one encoding and stays within its bounds; so has a session token.

use bield_capsule::{Head, WriterId};
use bield_envelope::{Digest, Time};
use bield_table::{
    Action, Change, Condition, Followed, Handle, KEY_BYTES_MAX, Session, TableEntry,
    VALUE_BYTES_MAX, Version, bucket_range, full_key, split_key,
};

/// A payload of a data record.
pub fn table_entry(data: &[u8]) -> bool {
    let Ok(Some(entry)) = TableEntry::decode(data) else {
        return false;
    };
    let mut again = Vec::new();
    entry.encode_to(&mut again);
    assert_eq!(again, data);
    match entry.action {
        Action::Change(change) | Action::Fenced { change, .. } => {
            let key = change.key();
            assert!(split_key(key).is_some() && key.len() <= KEY_BYTES_MAX);
            if let Change::Put { value, .. } = change {
                assert!(value.len() <= VALUE_BYTES_MAX);
            }
        }
        Action::DeleteRange { from, to } => assert!(from < to && split_key(from).is_some()),
        Action::Lease(lease) => {
            assert!(lease.from < lease.to);
            let tokens: Vec<u64> = lease.follows().map(|followed| followed.token).collect();
            assert!(tokens.iter().all(|token| *token < lease.token));
            assert!(tokens.is_sorted_by(|a, b| a > b));
        }
        Action::Acknowledge { .. } => {}
    }
    true
}

/// What a caller has seen.
pub fn table_session(data: &[u8]) -> bool {
    let handle = Handle::decode(data);
    if let Some(handle) = &handle {
        assert_eq!(handle.encode(), data);
    }
    let Ok(session) = Session::decode(data) else {
        return handle.is_some();
    };
    assert_eq!(session.encode().as_deref(), Some(data));
    assert!(session.covers(&session));
    true
}

pub(crate) mod seeds {
    use super::*;
    use bield_capsule::Clock;

    pub(crate) fn table_entry() -> Vec<Vec<u8>> {
        let key = full_key("cart", b"apples").expect("short");
        let (from, to) = bucket_range("cart").expect("short");
        let (clock, writer) = (Clock::from_bits(7 << 16), WriterId::from_bytes([1; 32]));
        let version = Version { clock, writer };
        let put = |expires| Change::Put {
            key: &key,
            value: b"3",
            expires,
        };
        let fenced = |condition| Action::Fenced {
            token: 9,
            condition,
            change: put(None),
        };
        let mut scratch = Vec::new();
        let follows = [9, 4].map(|token| Followed {
            token,
            holder: writer,
            seq: token,
        });
        let range = (&*from, &*to);
        let lease = TableEntry::lease(clock, 10, range, &follows, &mut scratch);
        let actions = [
            Action::Change(put(None)),
            Action::Change(put(Some(Time::from_millis(5)))),
            Action::Change(Change::Delete { key: &key }),
            Action::DeleteRange {
                from: &from,
                to: &to,
            },
            Action::Acknowledge { epoch: 3 },
            fenced(Condition::Unconditional),
            fenced(Condition::Absent),
            fenced(Condition::Is(version)),
            lease.action,
        ];
        let encoded = actions.map(|action| {
            let mut payload = Vec::new();
            TableEntry { clock, action }.encode_to(&mut payload);
            payload
        });
        encoded.to_vec()
    }

    pub(crate) fn table_session() -> Vec<Vec<u8>> {
        let head = |byte| Head {
            writer: WriterId::from_bytes([byte; 32]),
            seq: u64::from(byte) << 32,
            hash: Digest::from_bytes([byte; 32]),
        };
        let handle = Handle::of(None);
        let sessions = [vec![], vec![head(1)], vec![head(1), head(2)]];
        let sessions = sessions.map(|heads| Session::new(heads).encode().expect("few writers"));
        sessions.into_iter().chain([handle.encode()]).collect()
    }
}
