//! The statements of the vectors, and bytes that look like them and are not.

use bield_envelope::{
    Digest, Principal, Secret, Seeded, Signed, SigningKey, Statement, Time, wire,
};
use bield_evidence::{Measurement, TeeKind};
use bield_grant::{
    CodeSelector, CodeSigner, Grant, Group, Isolation, PackageSelector, Succession, UserSelector,
    VerifiedSuccession, VersionRange, audience,
};
use minicbor::Encoder;
use serde_json::{Value, json};

use crate::by_hand::{cose_sign1, sig_structure};

pub(crate) const NOON: Time = Time::from_secs(1_800_000_000);
/// Thirty days after noon.
const END: Time = Time::from_secs(1_802_592_000);

/// Who says something in the vectors.
pub(crate) struct Cast {
    pub(crate) owner: SigningKey,
    pub(crate) user: SigningKey,
    pub(crate) member: SigningKey,
    pub(crate) heir: SigningKey,
}

impl Cast {
    pub(crate) fn new() -> Self {
        let mut entropy = Seeded::new(4);
        let mut key = || SigningKey::from_seed(Secret::generate(&mut entropy));
        Self {
            owner: key(),
            user: key(),
            member: key(),
            heir: key(),
        }
    }

    /// One user, one package, one measurement.
    pub(crate) fn grant(&self) -> Grant {
        Grant {
            id: core::array::from_fn(|index| u8::try_from(index).unwrap()),
            package: PackageSelector::Digest(package()),
            user: UserSelector::Principal(self.user.principal()),
            code: CodeSelector::Measurement(measurement()),
            isolation: Isolation::Wiped,
            not_before: NOON,
            not_after: END,
            requests: None,
        }
    }

    /// A group, a range of versions, a signer, a quota.
    pub(crate) fn grant_by_selectors(&self) -> Grant {
        let signer = CodeSigner::new(TeeKind::Sgx, &[0xd0; 32], Some(1), 3).unwrap();
        Grant {
            id: [0xa5; 16],
            package: PackageSelector::Named("magika".parse().unwrap(), "^3.2".parse().unwrap()),
            user: UserSelector::Group("team".parse().unwrap()),
            code: CodeSelector::Signed(signer),
            isolation: Isolation::Shared,
            not_before: NOON,
            not_after: END,
            requests: Some(1_000),
        }
    }

    /// The owner's team.
    pub(crate) fn group(&self) -> Group {
        let members = vec![self.member.principal(), self.user.principal()];
        Group::new("team".parse().unwrap(), 7, members).unwrap()
    }

    /// The heir stands where the user stood.
    pub(crate) fn succession(&self) -> Succession {
        Succession {
            from: self.user.principal(),
            to: self.heir.principal(),
            at: NOON,
        }
    }

    pub(crate) fn succeeded(&self) -> VerifiedSuccession {
        let half = |by| Signed::sign(by, self.succession());
        VerifiedSuccession::new(half(&self.user), half(&self.heir)).unwrap()
    }
}

pub(crate) fn digest(name: &[u8]) -> Digest {
    Digest::of("bield test vector v1", &[name])
}

pub(crate) fn package() -> Digest {
    digest(b"package")
}

pub(crate) fn measurement() -> Measurement {
    Measurement::new(TeeKind::Sgx, &[0xc0; 32]).unwrap()
}

pub(crate) fn hexed(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

pub(crate) fn keys(cast: &Cast) -> Value {
    let key = |key: &SigningKey| {
        (
            hexed(key.seed().expose()),
            hexed(key.principal().as_bytes()),
        )
    };
    let [owner, user, member, heir] = [&cast.owner, &cast.user, &cast.member, &cast.heir].map(key);
    json!({
        "owner_seed": owner.0, "owner": owner.1,
        "user_seed": user.0, "user": user.1,
        "member_seed": member.0, "member": member.1,
        "heir_seed": heir.0, "heir": heir.1,
    })
}

pub(crate) fn grant(cast: &Cast, grant: &Grant) -> Value {
    let payload = wire::encode(grant);
    let signed = Signed::sign(&cast.owner, grant.clone());
    json!({
        "id": hexed(&grant.id),
        "package": grant.package.to_string(),
        "user": grant.user.to_string(),
        "code": grant.code.to_string(),
        "isolation": grant.isolation.to_string(),
        "not_before": grant.not_before.as_millis(),
        "not_after": grant.not_after.as_millis(),
        "requests": grant.requests,
        "payload": hexed(&payload),
        "sig_structure": hexed(&sig_structure(&cast.owner, Grant::DOMAIN, &payload)),
        "signed": hexed(signed.as_bytes()),
        "digest": hexed(signed.digest().as_bytes()),
    })
}

pub(crate) fn group(cast: &Cast) -> Value {
    let group = cast.group();
    let signed = Signed::sign(&cast.owner, group.clone());
    json!({
        "name": group.name().to_string(),
        "revision": group.revision(),
        "members": group.members().iter().map(|member| hexed(member.as_bytes())).collect::<Vec<_>>(),
        "payload": hexed(&wire::encode(&group)),
        "signed": hexed(signed.as_bytes()),
        "digest": hexed(signed.digest().as_bytes()),
    })
}

pub(crate) fn succession(cast: &Cast) -> Value {
    let succession = cast.succession();
    let succeeded = cast.succeeded().to_succeeded();
    json!({
        "from": hexed(succession.from.as_bytes()),
        "to": hexed(succession.to.as_bytes()),
        "at": succession.at.as_millis(),
        "payload": hexed(&wire::encode(&succession)),
        "by_old": hexed(succeeded.by_old.as_bytes()),
        "by_new": hexed(succeeded.by_new.as_bytes()),
        "both": hexed(&wire::encode(&succeeded)),
    })
}

pub(crate) fn audiences() -> Value {
    [(TeeKind::Sgx, 32), (TeeKind::Tdx, 48), (TeeKind::Snp, 48)]
        .map(|(kind, length)| {
            let code = Measurement::new(kind, &vec![0xab; length]).unwrap();
            json!({
                "package": hexed(package().as_bytes()),
                "code": code.to_string(),
                "audience": hexed(audience(package(), &code).as_bytes()),
            })
        })
        .into()
}

/// Every kind of range with every kind of version.
pub(crate) fn ranges() -> Value {
    let ranges = [
        "*",
        "=1.2",
        "=1.2.0",
        "=2024-06-A",
        "^1.2.3",
        "^1.2",
        "^1",
        "^0.2.3",
        "^0.0.3",
        "^0.0",
        "^0",
        "~1.2.3",
        "~1.2",
        "~1",
        "1.2.*",
        "1.*",
        ">1.2.3",
        ">1.2",
        ">1",
        ">=1.2.3",
        ">=1.2",
        ">=1",
        "<1.2.3",
        "<1.2",
        "<1",
        "<=1.2.3",
        "<=1.2",
        "<=1",
        ">=1.2, <2",
        ">=1.2.3-b",
        "^1.2.3-b",
        "<1.2.3-b",
        ">=1.2.3-b, <1.3.0-b",
        ">1.2.2, <1.2.3-b.1",
        "~1.2.2, >1.2.3-a",
    ];
    let versions = [
        "0.0.0",
        "0.0.3",
        "0.0.4",
        "0.2.2",
        "0.2.3",
        "0.2.9",
        "0.3.0",
        "1.0.0",
        "1.2",
        "1.2.0",
        "1.2.2",
        "1.2.3-a",
        "1.2.3-b",
        "1.2.3-b.1",
        "1.2.3",
        "1.2.4-a",
        "1.2.9",
        "1.3.0-a",
        "1.3.0",
        "1.9.0",
        "2.0.0-b",
        "2.0.0",
        "2024-06-A",
        "01.2.3",
        "1.2.03",
        "18446744073709551616.0.0",
    ];
    let row = |text: &str| {
        let range: VersionRange = text.parse().unwrap();
        assert_eq!(range.to_string(), text);
        let inside: Vec<_> = versions
            .iter()
            .filter(|version| range.matches(version))
            .collect();
        json!({ "range": text, "versions": inside })
    };
    json!({ "of": versions, "rows": ranges.map(row).to_vec() })
}

/// Text that is no range.
pub(crate) const RANGES_REFUSED: &[&str] = &[
    "",
    "1",
    "1.2",
    "1.2.3",
    "x",
    "1.x",
    "*, <2",
    "<2, *",
    "=1, <2",
    ">=1, =1.2",
    "^1 <2",
    "^01",
    "^1.2.3+build",
    "=1.0+b",
    "=",
    "=a b",
    "=a..b",
    "=-a",
    "latest",
    "^1 || ^2",
    "^1.2.3.4",
    "1.*.3",
    "^1.2.3-",
    "^1.2-a",
    "^1.2.3-01",
    "^18446744073709551616",
    ">=1,, <2",
    ">=1,",
    ">=1.2, <1.2.3-z",
    "1.*, >1.2.3-a",
];

/// Correctly signed, and yet not what they seem.
pub(crate) fn refused(cast: &Cast) -> Value {
    json!({
        "grants": refused_grants(cast),
        "groups": refused_groups(cast),
        "successions": refused_successions(cast),
    })
}

fn refused_grants(cast: &Cast) -> Value {
    let payload = wire::encode(&cast.grant());
    let isolation_at = payload.len() - 2 * 10 - 1;
    assert_eq!(
        payload[isolation_at], 1,
        "isolation `wiped`, before two times of 1 + 9 bytes"
    );
    let changed = |change: fn(&mut Vec<u8>, usize)| {
        let mut payload = payload.clone();
        change(&mut payload, isolation_at);
        payload
    };
    let with = |key: u8, value: &[u8]| replaced(&payload, key, value);
    let by_selectors = wire::encode(&cast.grant_by_selectors());
    let signer = |kind: u8, bytes: &[u8], product: bool| {
        let mut e = Encoder::new(Vec::new());
        e.array(2).unwrap().u8(1).unwrap().array(1).unwrap();
        e.map(3 + u64::from(product)).unwrap();
        e.u8(0)
            .unwrap()
            .u8(kind)
            .unwrap()
            .u8(1)
            .unwrap()
            .bytes(bytes)
            .unwrap();
        if product {
            e.u8(2).unwrap().u8(1).unwrap();
        }
        e.u8(3).unwrap().u8(3).unwrap();
        with(3, &e.into_writer())
    };
    let named = |name: &str, range: &str| {
        let mut e = Encoder::new(Vec::new());
        e.array(2).unwrap().u8(1).unwrap().array(2).unwrap();
        e.str(name).unwrap().str(range).unwrap();
        with(1, &e.into_writer())
    };
    let case = |why: &str, domain: &str, payload: &[u8]| json!({ "why": why, "signed": hexed(&cose_sign1(&cast.owner, domain, payload)) });
    let grant = |why: &str, payload: &[u8]| case(why, Grant::DOMAIN, payload);
    json!([
        grant(
            "isolation 3 is unknown",
            &changed(|payload, at| payload[at] = 3)
        ),
        grant(
            "isolation in two bytes where one suffices",
            &changed(|payload, at| {
                payload.splice(at..=at, [0x18, 0x01]);
            })
        ),
        grant(
            "map of indefinite length",
            &changed(|payload, _| {
                payload[0] = 0xbf;
                payload.push(0xff);
            })
        ),
        grant(
            "an unknown key 8",
            &changed(|payload, _| {
                payload[0] = 0xa8;
                payload.extend([0x08, 0x00]);
            })
        ),
        grant(
            "requests is null",
            &changed(|payload, _| {
                payload[0] = 0xa8;
                payload.extend([0x07, 0xf6]);
            })
        ),
        grant(
            "not_after is missing",
            &changed(|payload, _| {
                payload[0] = 0xa6;
                payload.truncate(payload.len() - 10);
            })
        ),
        grant(
            "a byte follows the map",
            &changed(|payload, _| payload.push(0))
        ),
        grant(
            "package selector 2 is unknown",
            &with(
                1,
                &[&[0x82, 0x02, 0x81][..], &wire::encode(&package())].concat()
            )
        ),
        grant(
            "user selector 2 is unknown",
            &with(
                2,
                &[
                    &[0x82, 0x02, 0x81][..],
                    &wire::encode(&cast.user.principal())
                ]
                .concat()
            )
        ),
        grant(
            "code selector 2 is unknown",
            &with(
                3,
                &[&[0x82, 0x02, 0x81][..], &wire::encode(&measurement())].concat()
            )
        ),
        grant(
            "a package that is not in a selector, as in version 1",
            &with(1, &wire::encode(&package()))
        ),
        grant(
            "signed code of a TD, whose MROWNER nobody checks",
            &signer(2, &[0xd0; 48], false)
        ),
        grant(
            "signed code of an unknown kind",
            &signer(4, &[0xd0; 48], false)
        ),
        grant("a signer of zeros", &signer(1, &[0; 32], false)),
        grant("a signer of another length", &signer(1, &[0xd0; 48], false)),
        grant("a product of an SNP guest", &signer(3, &[0xd0; 48], true)),
        grant(
            "a group's name with a capital",
            &with(
                2,
                &[&[0x82, 0x01, 0x81][..], &wire::encode(&"Team".to_owned())].concat()
            )
        ),
        grant("a package's name with a slash", &named("a/b", "*")),
        grant("a range with other spaces", &named("magika", ">=1,<2")),
        grant("a bare version as a range", &named("magika", "1.2.3")),
        case("signed as version 1", "bield grant v1", &payload),
        case(
            "signed as another kind of statement",
            "bield group v1",
            &by_selectors
        ),
    ])
}

/// The payload with the value of one key replaced; keys are in order, each one byte.
fn replaced(payload: &[u8], key: u8, value: &[u8]) -> Vec<u8> {
    let mut d = minicbor::Decoder::new(payload);
    let count = d.map().unwrap().unwrap();
    let mut out = vec![payload[0]];
    for _ in 0..count {
        let found = d.u8().unwrap();
        let from = d.position();
        d.skip().unwrap();
        out.push(found);
        out.extend(if found == key {
            value
        } else {
            &payload[from..d.position()]
        });
    }
    out
}

fn refused_groups(cast: &Cast) -> Value {
    let mut members = [cast.user.principal(), cast.member.principal()];
    members.sort();
    let [first, second] = members;
    let payload = |name: &str, members: &[Principal]| {
        let mut e = Encoder::new(Vec::new());
        e.map(3).unwrap().u8(0).unwrap().str(name).unwrap();
        e.u8(1).unwrap().u8(7).unwrap();
        e.u8(2).unwrap().encode(members).unwrap();
        e.into_writer()
    };
    assert_eq!(
        payload("team", &[first, second]),
        wire::encode(&cast.group())
    );
    let case = |why: &str, domain: &str, payload: &[u8]| json!({ "why": why, "signed": hexed(&cose_sign1(&cast.owner, domain, payload)) });
    let good = wire::encode(&cast.group());
    json!([
        case(
            "members out of order",
            Group::DOMAIN,
            &payload("team", &[second, first])
        ),
        case(
            "a member twice",
            Group::DOMAIN,
            &payload("team", &[first, first])
        ),
        case(
            "a name with a capital",
            Group::DOMAIN,
            &payload("Team", &[first])
        ),
        case("an empty name", Group::DOMAIN, &payload("", &[first])),
        case(
            "a byte follows the map",
            Group::DOMAIN,
            &[&good[..], &[0]].concat()
        ),
        case("signed as a grant", Grant::DOMAIN, &good),
    ])
}

fn refused_successions(cast: &Cast) -> Value {
    let said = |from: &SigningKey, to: &SigningKey, by: &SigningKey| {
        let succession = Succession {
            from: from.principal(),
            to: to.principal(),
            at: NOON,
        };
        hexed(Signed::sign(by, succession).as_bytes())
    };
    let (old, new, other) = (&cast.user, &cast.heir, &cast.member);
    let case = |why: &str, by_old: String, by_new: String| json!({ "why": why, "by_old": by_old, "by_new": by_new });
    json!([
        case(
            "signed twice by the old",
            said(old, new, old),
            said(old, new, old)
        ),
        case(
            "signed twice by the new",
            said(old, new, new),
            said(old, new, new)
        ),
        case(
            "the halves are swapped",
            said(old, new, new),
            said(old, new, old)
        ),
        case(
            "signed by another instead of the old",
            said(old, new, other),
            said(old, new, new)
        ),
        case(
            "the halves name two successors",
            said(old, new, old),
            said(old, other, other)
        ),
        case(
            "one succeeds oneself",
            said(old, old, old),
            said(old, old, old)
        ),
    ])
}
