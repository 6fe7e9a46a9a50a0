//! Messages between zones: one encoding per message, and no message that is not within its bounds.

use bield_capsule::{CapsuleName, Head, WriterCertificate, WriterId};
use bield_envelope::{AudienceKey, Signed, wire};
use bield_grant::{CodeSelector, audience};
use bield_package::tensor::Tensor;
use bield_protocol::call::{self, Unsealed};
use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::inference::{self, Answer, Output};
use bield_protocol::parts::{self, Arriving, End, Item};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    self, Anchors, AuditEntry, AuditEvent, AuditPage, Freshness, GrantId, GrantRow, GroupRow,
    HeldState, Inspection, KeyConfiguration, LeaseRequest, LeasedAudienceKey, LeasedKeys,
    ListingPage, PackageReference, PackageRow, PrincipalRow, Recovered, RefusedLease, Returned,
    ShareProgress, StateAct, StateRequest,
};
use bield_protocol::status::{Metric, Status};
use bield_protocol::visit::Visit;

use crate::{cast, package, statements};

/// What the key service reads.
pub fn service_request(data: &[u8]) -> bool {
    let decoded = service::Request::decode(data);
    decoded.is_ok_and(|message| same(&message.encode(), data))
}

/// What clients and runtimes read from the key service.
pub fn service_reply(data: &[u8]) -> bool {
    let decoded = service::Reply::decode(data);
    decoded.is_ok_and(|message| same(&message.encode(), data))
}

/// What a runtime reads from a granted user, after opening it.
pub fn inference_request(data: &[u8]) -> bool {
    let Ok((request, in_parts)) = parts::decode_request(data) else {
        return false;
    };
    request.inputs.iter().for_each(consistent);
    match in_parts {
        true => same(&parts::encode_request(&request), data),
        false => same(&request.encode(), data),
    }
}

/// What a user reads of an answer that comes in parts; accepted when nothing is left over.
pub fn inference_parts(data: &[u8]) -> bool {
    let mut arriving = Arriving::default();
    if arriving.push(data).is_err() {
        return false;
    }
    let mut again = Vec::new();
    loop {
        match arriving.next_item() {
            Ok(Some(item)) => again.extend_from_slice(&item.encode(again.is_empty())),
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    assert!(data.starts_with(&again), "another encoding of the same");
    !again.is_empty() && again.len() == data.len()
}

/// The bytes a receipt's commitment covers.
pub fn inference_output(data: &[u8]) -> bool {
    let decoded = wire::decode::<Output>(data, inference::BODY_BYTES_MAX);
    decoded.is_ok_and(|output| {
        output.tensors.iter().for_each(consistent);
        same(&output.encode(), data)
    })
}

/// What a user reads from a runtime, after opening it.
pub fn inference_reply(data: &[u8]) -> bool {
    let Ok(reply) = inference::Reply::decode(data) else {
        return false;
    };
    if let inference::Reply::Answered(answer) = &reply
        && let Ok(output) = answer.output()
    {
        output.tensors.iter().for_each(consistent);
        assert_eq!(output.encode(), answer.output);
    }
    match data.first() {
        Some(0) => same(&reply.encode_padded(), data),
        _ => same(&reply.encode(), data),
    }
}

/// What the host reads from its own enclave program, which it need not trust either.
pub fn call_reply(data: &[u8]) -> bool {
    let decoded = call::Reply::decode(data);
    decoded.is_ok_and(|reply| same(&reply.encode(), data))
}

/// What an enclave program says of itself; also the byte that opens a visit.
pub fn status(data: &[u8]) -> bool {
    if let Some((byte, _)) = data.split_first()
        && let Some(visit) = Visit::from_byte(*byte)
    {
        assert_eq!(visit.byte(), *byte);
    }
    let decoded = Status::decode(data);
    decoded.is_ok_and(|status| same(&status.encode(), data))
}

fn same(encoded: &[u8], data: &[u8]) -> bool {
    assert!(encoded == data, "a second encoding of one message");
    true
}

/// A tensor that exists has exactly the data its shape asks for.
fn consistent(tensor: &Tensor) {
    let elements: u64 = tensor.shape().iter().product();
    assert_eq!(tensor.len() as u64, elements);
    match tensor.element().size_bytes() {
        Some(size) => assert_eq!(tensor.data().len() as u64, elements * size as u64),
        None => {
            let strings = tensor.to_strings().expect("a tensor of strings");
            let again = Tensor::from_strings(tensor.name(), tensor.shape(), &strings);
            assert!(again.as_ref() == Ok(tensor));
        }
    }
    let _ = format!("{tensor:?}");
}

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn service_request() -> Vec<Vec<u8>> {
        use service::Request;
        let [register, put, grant, revoke, group, succeed] = statements::seeds::commands();
        let named = PackageReference::Named(cast::owner().principal(), "small".into(), None);
        let further = statements::seeds::further_commands();
        let give = further.last().cloned().expect("the last one gives a share");
        let requests = [
            Request::Command(register),
            Request::PutPackage(put, cast::secret(1)),
            Request::Command(grant),
            Request::Command(revoke),
            Request::Command(group),
            Request::Command(succeed),
            Request::KeyConfiguration(
                PackageReference::Digest(cast::digest("package")),
                CodeSelector::Measurement(cast::code()),
            ),
            Request::KeyConfiguration(named, cast::signer()),
            Request::Lease(LeaseRequest {
                package: cast::digest("package"),
                returned: Some(returned()),
            }),
            Request::Return(returned()),
            Request::Certify(cast::worker().principal()),
            Request::Inspect,
            Request::CertifyWriter(
                CapsuleName::from(cast::digest("capsule")),
                WriterId::from(cast::digest("writer")),
            ),
            Request::Freshness(None),
            Request::Freshness(Some(CHECKPOINT.into())),
            Request::GiveShare(give, cast::share()),
            Request::State(state_request(StateAct::Hold)),
            Request::State(state_request(StateAct::Anchor(anchors()))),
            Request::State(state_request(StateAct::Release(anchors()))),
        ];
        let further = further.into_iter().map(Request::Command);
        further
            .chain(requests)
            .map(|request| request.encode().to_vec())
            .collect()
    }

    /// As long as a real one; whether it is signed is not the decoder's business.
    const CHECKPOINT: &str = "bield/keys/00\n17\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\
                              \u{2014} bield/keys/00 AAAAAA==\n";

    fn returned() -> Returned {
        Returned {
            lease: 16,
            unused: vec![cast::allotment()],
        }
    }

    fn state_request(act: StateAct) -> StateRequest {
        StateRequest {
            package: cast::digest("package"),
            capsule: CapsuleName::from(cast::digest("capsule")),
            writer: WriterId::from(cast::digest("writer")),
            act,
        }
    }

    fn anchors() -> Anchors {
        Anchors {
            token: 7,
            heads: vec![head()],
            covered: vec![WriterId::from(cast::digest("an earlier writer"))],
        }
    }

    fn head() -> Head {
        Head {
            writer: WriterId::from(cast::digest("writer")),
            seq: 17,
            hash: cast::digest("record 17"),
        }
    }

    pub(crate) fn service_reply() -> Vec<Vec<u8>> {
        use service::Reply;
        let configuration = KeyConfiguration {
            audience: audience(cast::digest("package"), &cast::code()),
            package: cast::digest("package"),
            code: cast::code_identity(),
            key: AudienceKey::from_seed(cast::secret(2)).public().clone(),
            not_after: cast::NOON,
            owner: cast::owner().principal(),
            name: "small".into(),
            version: "1.0".into(),
            inputs: package::specs(),
            outputs: package::specs(),
            service: cast::service().principal(),
            generation: 0,
        };
        let keys = LeasedKeys {
            lease: cast::lease(),
            package_key: cast::secret(3),
            audience_keys: vec![audience_key(4, None), audience_key(5, Some(cast::NOON))],
            grants: vec![
                cast::grant().into_signed(),
                cast::grant_by_selectors().into_signed(),
            ],
            issued: cast::NOON,
            groups: vec![cast::group(3, 2).into_signed()],
            successions: vec![cast::succeeded().to_succeeded()],
            allotments: vec![cast::allotment()],
        };
        let inspection = Inspection {
            principals: 1,
            packages: 2,
            grants: 300,
            service: cast::service().principal(),
            state: "serving".into(),
            size: 1_000,
            log: "bield/keys/00+00000000+AA".into(),
            witnesses: (3, 2),
            members: 3,
            shares: Some((5, 3)),
            lease_secs: 600,
            trouble: None,
        };
        [
            Reply::Done(17),
            Reply::KeyConfiguration(configuration),
            Reply::Lease(keys),
            Reply::Certificate(cast::certificate().into_signed()),
            Reply::Inspection(inspection),
            Reply::Refused(refusal()),
            Reply::WriterCertificate(Signed::sign(&cast::service(), writer()).into_signed()),
            Reply::Freshness(freshness()),
            Reply::Audit(audit()),
            Reply::State(HeldState {
                token: 7,
                until: cast::NOON,
                heads: vec![head()],
            }),
            Reply::Share(cast::share()),
            Reply::ShareProgress(ShareProgress {
                given: vec![cast::owner().principal()],
                needed: 2,
                opened: true,
                size: Some(17),
                origin: Some("bield/keys/00".into()),
            }),
        ]
        .into_iter()
        .chain(pages().map(Reply::Listing))
        .map(|reply| reply.encode().to_vec())
        .collect()
    }

    fn freshness() -> Freshness {
        Freshness {
            checkpoint: CHECKPOINT.into(),
            consistency: vec![[1; 32].into(), [2; 32].into()],
            log: "bield/keys/00+00000000+AA".into(),
            recovered: vec![Recovered {
                origin: "bield/keys/01".into(),
                size: 5,
                root: [3; 32],
                holders: vec![cast::owner().principal()],
                at: cast::NOON,
                next: "bield/keys/00".into(),
            }],
        }
    }

    fn audit() -> AuditPage {
        let package = cast::digest("package");
        let leased = AuditEvent::Leased {
            package,
            code: cast::code(),
            simulated: true,
            until: cast::NOON,
            lease: 16,
            allotments: vec![cast::allotment()],
        };
        let returned = AuditEvent::Returned {
            lease: 16,
            unused: vec![cast::allotment()],
        };
        let events = [
            AuditEvent::Registered,
            AuditEvent::PackagePut(package, "small".into(), "1.0".into()),
            AuditEvent::Granted(GrantId([9; 16]), cast::digest("grant")),
            AuditEvent::Revoked(vec![GrantId([9; 16])]),
            AuditEvent::GroupPut("team".into(), 3, 2),
            AuditEvent::AudienceRotated(package, 1, true),
            AuditEvent::Succeeded(cast::user().principal()),
            leased,
            returned,
            AuditEvent::SharesMade(vec![cast::user().principal()], 1),
            AuditEvent::StateTaken {
                package,
                capsule: CapsuleName::from(cast::digest("capsule")),
                code: cast::code(),
                simulated: true,
                writer: WriterId::from(cast::digest("writer")),
                token: 7,
                heads: cast::digest("heads"),
            },
            AuditEvent::StateReleased {
                capsule: CapsuleName::from(cast::digest("capsule")),
                token: 7,
                heads: cast::digest("heads"),
            },
        ];
        let entries = events.map(|event| AuditEntry {
            record: 7,
            at: cast::NOON,
            event,
        });
        AuditPage {
            from: 3,
            before: cast::digest("before"),
            entries: entries.into(),
            count: 13,
            digest: cast::digest("all"),
            refused: vec![RefusedLease {
                at: cast::NOON,
                package,
                code: cast::code(),
                reason: "code-not-granted".into(),
            }],
        }
    }

    fn pages() -> [ListingPage; 4] {
        let package = PackageRow {
            package: cast::digest("package"),
            name: "small".into(),
            version: "1.0".into(),
            at: cast::NOON,
            generation: 2,
            grants: 300,
            leases: 4,
            codes: vec![cast::code()],
        };
        let grant = GrantRow {
            owner: cast::owner().principal(),
            grant: cast::grant_by_selectors().into_signed(),
            left: Some(17),
        };
        let group = GroupRow {
            name: "team".into(),
            revision: 3,
            members: vec![cast::user().principal()],
        };
        let me = PrincipalRow {
            principal: cast::owner().principal(),
            succeeds: vec![cast::user().principal()],
            registered: true,
            administrator: true,
            holder: true,
        };
        [
            ListingPage::Packages(vec![package], true),
            ListingPage::Grants(vec![grant], false),
            ListingPage::Groups(vec![group], true),
            ListingPage::Me(me),
        ]
    }

    fn audience_key(seed: u8, not_after: Option<bield_envelope::Time>) -> LeasedAudienceKey {
        LeasedAudienceKey {
            seed: cast::secret(seed),
            not_after,
        }
    }

    fn writer() -> WriterCertificate {
        WriterCertificate {
            capsule: CapsuleName::from(cast::digest("capsule")),
            writer: WriterId::from(cast::digest("writer")),
            code: Some(wire::encode(&cast::code())),
            simulated: true,
            not_before: cast::NOON,
            not_after: cast::NOON.plus(core::time::Duration::from_secs(3600)),
        }
    }

    pub(crate) fn inference_request() -> Vec<Vec<u8>> {
        let request = inference::Request {
            inputs: tensors(),
            outputs: vec!["probs".into()],
        };
        vec![
            request.encode().to_vec(),
            parts::encode_request(&request).to_vec(),
        ]
    }

    pub(crate) fn inference_parts() -> Vec<Vec<u8>> {
        let output = |tensor: &Tensor| Item::Output(tensor.clone());
        let end = Item::End(End {
            salt: cast::SALT,
            receipt: cast::receipt().into_signed(),
            certificate: cast::certificate().into_signed(),
        });
        let whole = tensors().iter().map(output).chain([end]).collect();
        let refused = vec![output(&tensors()[0]), Item::Refused(refusal())];
        let encoded = |items: Vec<Item>| {
            let items = items.iter().enumerate();
            items
                .flat_map(|(index, item)| item.encode(index == 0).to_vec())
                .collect()
        };
        [whole, refused].map(encoded).to_vec()
    }

    pub(crate) fn inference_output() -> Vec<Vec<u8>> {
        vec![Output { tensors: tensors() }.encode()]
    }

    pub(crate) fn inference_reply() -> Vec<Vec<u8>> {
        let answer = Answer {
            output: Output { tensors: tensors() }.encode(),
            salt: cast::SALT,
            receipt: cast::receipt().into_signed(),
            certificate: cast::certificate().into_signed(),
        };
        vec![
            inference::Reply::Answered(answer).encode(),
            inference::Reply::Refused(refusal()).encode_padded(),
            inference::Reply::Refused(refusal()).encode(),
        ]
    }

    pub(crate) fn call_reply() -> Vec<Vec<u8>> {
        let feedback = || Feedback {
            start: StartKind::WarmKey,
            lease_us: 0,
            open_us: 5_000,
            load_us: 70_000,
            run_us: 900,
            total_us: u64::from(u32::MAX),
            resident: vec![cast::digest("package")],
            in_flight: 1,
            queue_us: 40,
            free_bytes: 1 << 33,
            engine: Some("rten 0.27".to_owned()),
            state: None,
        };
        let unsealed = Unsealed {
            code: "busy".into(),
            message: "try again".into(),
            retry_after_ms: Some(100),
        };
        vec![
            call::Reply::Sealed(feedback(), b"sealed".to_vec()).encode(),
            call::Reply::Unsealed(feedback(), unsealed).encode(),
            call::Reply::Streamed(feedback(), b"the first of it".to_vec()).encode(),
        ]
    }

    pub(crate) fn status() -> Vec<Vec<u8>> {
        let status = Status {
            program: "bield-runtime".into(),
            version: "0.1.0".into(),
            measurement: cast::code().to_string(),
            simulated: true,
            hardening: vec!["no core dumps".into()],
            missing: vec!["locked memory".into()],
            in_flight: 1,
            served: 2,
            refused: 3,
            resident: 4,
            state: "serving".into(),
            metrics: vec![Metric {
                name: "leases_total".into(),
                value: 5,
            }],
        };
        vec![status.encode()]
    }

    fn tensors() -> Vec<Tensor> {
        [
            Tensor::from_f32("image", &[1, 2, 2], &[0.0, 0.5, 1.0, -1.0]),
            Tensor::from_i64("ids", &[3], &[1, 2, 3]),
            Tensor::from_i32("empty", &[0, 7], &[]),
        ]
        .into_iter()
        .filter_map(Result::ok)
        .collect()
    }

    fn refusal() -> Refusal {
        Refusal::new("not-granted", "ask the owner", Retry::AfterChange)
    }
}
