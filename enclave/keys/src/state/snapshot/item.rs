//! What a snapshot is made of.
//!
//! Items stand in the order of this list, the end last; a person's groups and grants follow it. Unknown ones are
//! refused.

use bield_capsule::{CapsuleName, WriterId};
use bield_envelope::{Digest, Principal, Secret, Signed, Time, transport};
use bield_evidence::Measurement;
use bield_grant::{Allotment, CodeIdentity, Group, Succeeded};
use bield_package::tensor::TensorSpec;
use bield_package::{PackageName, PackageVersion};
use bield_protocol::service::{Recovered, Share};
use bield_receipt::StateHeads;
use minicbor::{Decode, Encode};

use crate::state::audit::Audit;
use crate::state::entry::Started;

/// One of them. Holds keys: encode into buffers that are wiped.
#[derive(Encode, Decode)]
pub(super) enum Item<'b> {
    /// Counters: next person, next lease, registrations, place in the log.
    #[n(0)]
    Counters(
        #[n(0)] u32,
        #[n(1)] u64,
        #[n(2)] u64,
        #[n(3)] Option<(u64, u32)>,
    ),
    #[n(1)]
    Administration {
        #[n(0)]
        identity: u32,
        #[n(1)]
        identities: Vec<Succeeded>,
        #[n(2)]
        admitted: Vec<Measurement>,
        #[n(3)]
        recovered: Vec<Recovered>,
        #[n(4)]
        epoch: u32,
        #[n(5)]
        started: Option<Started>,
        #[n(6)]
        closed: bool,
        /// Absent in snapshots from before codes were remembered as withdrawn.
        #[n(7)]
        #[cbor(default)]
        withdrawn: Vec<Measurement>,
    },
    #[n(2)]
    Shares {
        #[n(0)]
        generation: u32,
        #[n(1)]
        threshold: u8,
        #[n(2)]
        holders: Vec<Principal>,
        #[n(3)]
        shares: Vec<Share>,
    },
    #[n(3)]
    Succession(#[n(0)] Succeeded),
    /// Its groups and grants follow.
    #[n(4)]
    Person {
        #[n(0)]
        key: Principal,
        #[n(1)]
        number: u32,
        #[n(2)]
        before: Vec<Principal>,
        #[n(3)]
        audit: Audit,
    },
    #[n(5)]
    Group(#[n(0)] Signed<Group>),
    #[n(6)]
    Grant(
        #[cbor(b(0), with = "minicbor::bytes")] &'b [u8],
        #[n(1)] u8,
        #[n(2)] Option<u64>,
    ),
    #[n(7)]
    Package {
        #[n(0)]
        digest: Digest,
        #[n(1)]
        owner: Principal,
        #[n(2)]
        name: PackageName,
        #[n(3)]
        version: PackageVersion,
        #[n(4)]
        inputs: Vec<TensorSpec>,
        #[n(5)]
        outputs: Vec<TensorSpec>,
        #[cbor(n(6), with = "transport")]
        key: Secret,
        #[n(7)]
        serial: u64,
        #[n(8)]
        at: Time,
        #[n(9)]
        generation: u32,
        #[n(10)]
        before: Vec<(u32, Time)>,
        #[n(11)]
        codes: Vec<(CodeIdentity, u64)>,
    },
    #[n(8)]
    Lease {
        #[n(0)]
        id: u64,
        #[n(1)]
        package: Digest,
        #[n(2)]
        serial: u64,
        #[n(3)]
        code: Measurement,
        #[n(4)]
        until: Time,
        #[n(5)]
        allotments: Vec<Allotment>,
        #[n(6)]
        owner: u32,
    },
    /// How many items came before.
    #[n(9)]
    End(#[n(0)] u64),
    /// A function's state. Stands after the leases; a service from before there were states refuses it.
    #[n(10)]
    State {
        #[n(0)]
        owner: u32,
        #[n(1)]
        capsule: CapsuleName,
        #[n(2)]
        name: PackageName,
        #[n(3)]
        writer: WriterId,
        #[n(4)]
        token: u64,
        #[n(5)]
        until: Time,
        #[n(6)]
        heads: StateHeads,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_from_before_withdrawn_codes_were_remembered_opens() {
        let item = Item::Administration {
            identity: 3,
            identities: Vec::new(),
            admitted: Vec::new(),
            recovered: Vec::new(),
            epoch: 1,
            started: None,
            closed: false,
            withdrawn: Vec::new(),
        };
        let mut bytes = minicbor::to_vec(&item).unwrap();
        // [1, [eight fields, the last of them empty]]: the same with seven.
        assert_eq!((bytes[2], bytes.pop()), (0x88, Some(0x80)));
        bytes[2] = 0x87;
        let read: Item<'_> = minicbor::decode(&bytes).unwrap();
        assert!(matches!(
            read,
            Item::Administration { identity: 3, epoch: 1, withdrawn, .. } if withdrawn.is_empty()
        ));
    }
}
