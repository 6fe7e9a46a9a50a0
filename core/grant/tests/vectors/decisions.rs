//! What becomes of runtimes and requests when one thing is different.

use bield_envelope::{
    AudienceKey, RequestHeader, SealedRequest, Secret, Seeded, Signed, SigningKey, Time, Verified,
    seal_request, wire,
};
use bield_evidence::{Measurement, TeeKind};
use bield_grant::{
    Allotment, CodeIdentity, CodeSelector, Grant, Group, Groups, Isolation, Lease, Leased, Meter,
    REQUEST_AGE_MAX, ReplayGuard, Revocations, SignerId, Succession, Successions, UserSelector,
    VerifiedSuccession, admit, audience, code_is_granted,
};
use serde_json::{Value, json};

use crate::making::{Cast, NOON, digest, hexed, measurement, package};

/// Everything that decides, and what is asked.
struct Story<'a> {
    cast: &'a Cast,
    grants: Vec<Verified<Grant>>,
    groups: Vec<Verified<Group>>,
    successions: Vec<VerifiedSuccession>,
    revoked: Vec<[u8; 16]>,
    allotments: Vec<Allotment>,
    lease: Lease,
    sender: &'a SigningKey,
    header: RequestHeader,
    now: Time,
}

impl<'a> Story<'a> {
    /// The user asks at noon, when the owner's two grants begin.
    fn new(cast: &'a Cast) -> Self {
        let grants = vec![
            Signed::sign(&cast.owner, cast.grant()),
            Signed::sign(&cast.owner, cast.grant_by_selectors()),
        ];
        let lease = Lease {
            package: package(),
            owner: cast.owner.principal(),
            name: "magika".parse().unwrap(),
            version: "3.3.0".parse().unwrap(),
            code: CodeIdentity {
                measurement: measurement(),
                signer: SignerId::new(TeeKind::Sgx, &[0xd0; 32]).ok(),
                product: Some(1),
                svn: Some(3),
            },
            simulated: true,
            not_after: Time::from_millis(NOON.as_millis() + 600_000),
            id: 9,
        };
        Self {
            allotments: vec![Allotment {
                grant: grants[1].digest(),
                requests: 1,
            }],
            groups: vec![Signed::sign(&cast.owner, cast.group())],
            successions: Vec::new(),
            revoked: Vec::new(),
            header: RequestHeader {
                audience: lease.audience(),
                key: audience_key().public().id(),
                package: package(),
                id: [9; 16],
                created: NOON,
            },
            sender: &cast.user,
            now: NOON,
            cast,
            grants,
            lease,
        }
    }

    /// Only the grant that names a group, a range, a signer and a quota; a member asks.
    fn by_selectors(cast: &'a Cast) -> Self {
        let mut story = Self::new(cast);
        story.grants.remove(0);
        story.sender = &cast.member;
        story
    }

    /// What becomes of a runtime with the lease's package and code.
    fn leased(&self, title: &str) -> Value {
        let mut revoked = Revocations::new();
        for id in &self.revoked {
            revoked.revoke(
                self.cast.owner.principal(),
                *id,
                Time::from_millis(u64::MAX),
            );
        }
        let (facts, successions) = (self.lease.facts(), self.successions.iter().collect());
        let decision = code_is_granted(
            facts,
            &self.lease.code,
            &self.grants,
            &successions,
            &revoked,
            self.now,
        );
        let mut told = self.told(title);
        told["revoked"] = self.revoked.iter().map(|id| hexed(id)).collect();
        told["decision"] = decision
            .map_or_else(|refused| refused.code(), |()| "leased")
            .into();
        told
    }

    /// What becomes of the request.
    fn requested(&self, title: &str) -> Value {
        let mut entropy = Seeded::new(404);
        let audience_key = audience_key();
        let public = audience_key.public();
        let (sealed, _) =
            seal_request(public, &self.header, self.sender, b"", &mut entropy).unwrap();
        let (opened, _) = audience_key
            .open(&SealedRequest::parse(&sealed).unwrap())
            .unwrap();
        let groups: Groups = self.groups.iter().cloned().collect();
        let leased = Leased {
            lease: &self.lease,
            keys: &[digest(b"another key"), public.id()],
            grants: &self.grants,
            groups: &groups,
            successions: &self.successions.iter().collect::<Successions>(),
            meter: &Meter::new(self.allotments.iter().copied()),
        };
        let decision = admit(opened, leased, &mut ReplayGuard::new(1), self.now);
        let mut told = self.told(title);
        told["groups"] = self
            .groups
            .iter()
            .map(|group| hexed(group.as_bytes()))
            .collect();
        told["allotments"] = self
            .allotments
            .iter()
            .map(|allotment| json!({ "grant": hexed(allotment.grant.as_bytes()), "requests": allotment.requests }))
            .collect();
        told["sender"] = hexed(self.sender.principal().as_bytes()).into();
        told["header"] = hexed(&wire::encode(&self.header)).into();
        match decision {
            Ok(admitted) => {
                told["decision"] = "admitted".into();
                told["grant"] = hexed(admitted.grant.as_bytes()).into();
            }
            Err(refused) => told["decision"] = refused.code().into(),
        }
        told
    }

    fn told(&self, title: &str) -> Value {
        let successions = self
            .successions
            .iter()
            .map(VerifiedSuccession::to_succeeded);
        json!({
            "title": title,
            "lease": hexed(&wire::encode(&self.lease)),
            "grants": self.grants.iter().map(|grant| hexed(grant.as_bytes())).collect::<Vec<_>>(),
            "successions": successions.map(|both| hexed(&wire::encode(&both))).collect::<Vec<_>>(),
            "now": self.now.as_millis(),
        })
    }

    /// Signs the same grant with one thing changed.
    fn add(&mut self, signer: &SigningKey, change: impl FnOnce(&mut Grant)) {
        let mut grant = self.cast.grant();
        change(&mut grant);
        self.grants.push(Signed::sign(signer, grant));
    }

    fn succeed(&mut self, from: &SigningKey, to: &SigningKey) {
        let half = |by| {
            let succession = Succession {
                from: from.principal(),
                to: to.principal(),
                at: NOON,
            };
            Signed::sign(by, succession)
        };
        let both = VerifiedSuccession::new(half(from), half(to)).unwrap();
        self.successions.push(both);
    }
}

/// Runtimes that ask for a lease.
pub(crate) fn leases<'a>(cast: &'a Cast) -> Value {
    let told = |title: &str, change: &dyn Fn(&mut Story<'a>)| {
        let mut story = Story::new(cast);
        change(&mut story);
        story.leased(title)
    };
    let selected = |title: &str, change: &dyn Fn(&mut Story<'a>)| {
        let mut story = Story::by_selectors(cast);
        change(&mut story);
        story.leased(title)
    };
    let ids = [cast.grant().id, cast.grant_by_selectors().id];
    json!([
        told("as granted", &|_| ()),
        selected("by name and signer", &|_| ()),
        told("nothing granted", &|story| story.grants.clear()),
        selected("an older version of the code", &|story| story
            .lease
            .code
            .svn = Some(2)),
        selected("a newer version of the code", &|story| story
            .lease
            .code
            .svn = Some(4)),
        selected("another product", &|story| story.lease.code.product =
            Some(2)),
        selected("another signer", &|story| {
            story.lease.code.signer = SignerId::new(TeeKind::Sgx, &[0xd1; 32]).ok();
        }),
        selected("no signer", &|story| story.lease.code.signer = None),
        selected("a version outside the range", &|story| {
            story.lease.version = "4.0.0".parse().unwrap();
        }),
        selected("a pre-release", &|story| story.lease.version =
            "3.3.0-rc1".parse().unwrap()),
        selected("another name", &|story| story.lease.name =
            "magika2".parse().unwrap()),
        told("signed by another", &|story| {
            story.grants.clear();
            story.add(&cast.heir, |_| ());
        }),
        told("signed by the owner's heir", &|story| {
            story.grants.clear();
            story.add(&cast.heir, |_| ());
            story.succeed(&cast.owner, &cast.heir);
        }),
        told("both revoked", &|story| story.revoked = ids.into()),
        told("one revoked", &|story| story.revoked = vec![ids[0]]),
        told("before both begin", &|story| story.now = before_noon()),
        told("when both end", &|story| story.now = cast.grant().not_after),
    ])
}

/// Requests that ask to be served.
pub(crate) fn requests<'a>(cast: &'a Cast) -> Value {
    let told = |title: &str, change: &dyn Fn(&mut Story<'a>)| {
        let mut story = Story::new(cast);
        change(&mut story);
        story.requested(title)
    };
    let selected = |title: &str, change: &dyn Fn(&mut Story<'a>)| {
        let mut story = Story::by_selectors(cast);
        change(&mut story);
        story.requested(title)
    };
    let millis = Time::from_millis;
    let oldest = NOON.minus(REQUEST_AGE_MAX).as_millis();
    let latest = NOON.as_millis() + 60_000;
    let of_header: [Value; 9] = [
        told("as granted: the stricter of two decides", &|_| ()),
        told("oldest that is fresh", &|story| {
            story.header.created = millis(oldest)
        }),
        told("too old", &|story| {
            story.header.created = millis(oldest - 1)
        }),
        told("latest that is not early", &|story| {
            story.header.created = millis(latest)
        }),
        told("from the future", &|story| {
            story.header.created = millis(latest + 1)
        }),
        told("sealed for other code", &|story| {
            let other = Measurement::new(TeeKind::Sgx, &[1; 32]).unwrap();
            story.header.audience = audience(story.header.package, &other);
        }),
        told("for another package", &|story| {
            story.header.package = digest(b"other package")
        }),
        told("after the lease", &|story| {
            story.now = story.lease.not_after
        }),
        told("by somebody else", &|story| story.sender = &cast.heir),
    ];
    let of_grants: [Value; 6] = [
        told("before it begins", &|story| {
            story.grants.clear();
            story.add(&cast.owner, |grant| {
                grant.not_before = millis(NOON.as_millis() + 1)
            });
        }),
        told("when it ends", &|story| {
            story.grants.clear();
            story.add(&cast.owner, |grant| {
                grant.not_before = before_noon();
                grant.not_after = NOON;
            });
        }),
        told("the strictest decides, although it ends first", &|story| {
            story.add(&cast.owner, |grant| {
                grant.isolation = Isolation::Dedicated;
                grant.not_after = millis(NOON.as_millis() + 1);
            });
        }),
        told("among equals the latest end decides", &|story| {
            story.add(&cast.owner, |grant| grant.not_after = millis(u64::MAX));
        }),
        told(
            "among equals with one end the smallest digest decides",
            &|story| {
                story.add(&cast.owner, |grant| grant.id = [1; 16]);
                story.add(&cast.owner, |grant| grant.id = [2; 16]);
            },
        ),
        told("for other code", &|story| {
            story.grants.clear();
            let other = Measurement::new(TeeKind::Sgx, &[1; 32]).unwrap();
            story.add(&cast.owner, |grant| {
                grant.code = CodeSelector::Measurement(other)
            });
        }),
    ];
    let of_selectors: [Value; 7] = [
        selected("a member of the group", &|_| ()),
        selected("not a member", &|story| story.sender = &cast.heir),
        selected("the group is not there", &|story| story.groups.clear()),
        selected("left the group with a newer revision", &|story| {
            let newer = Group::new("team".parse().unwrap(), 8, vec![cast.user.principal()]);
            story.groups.push(Signed::sign(&cast.owner, newer.unwrap()));
        }),
        selected("the group was signed by another", &|story| {
            story.groups = vec![Signed::sign(&cast.member, cast.group())];
        }),
        selected("two groups of the newest revision differ", &|story| {
            let other = Group::new("team".parse().unwrap(), 7, vec![cast.member.principal()]);
            story.groups.push(Signed::sign(&cast.owner, other.unwrap()));
        }),
        selected("nothing set aside", &|story| story.allotments.clear()),
    ];
    let of_quota: [Value; 3] = [
        selected("used up, and a looser one does not serve", &|story| {
            let member = UserSelector::Principal(cast.member.principal());
            story.add(&cast.owner, |grant| {
                grant.user = member.clone();
                grant.requests = Some(5);
            });
        }),
        selected("used up, and an equally strict one serves", &|story| {
            story.allotments.clear();
            let member = UserSelector::Principal(cast.member.principal());
            story.add(&cast.owner, |grant| {
                grant.user = member.clone();
                grant.isolation = Isolation::Shared;
                grant.not_after = millis(NOON.as_millis() + 1);
            });
        }),
        selected("a quota of nothing", &|story| {
            story.allotments[0].requests = 0
        }),
    ];
    let of_successions: [Value; 6] = [
        told("a successor", &|story| {
            story.sender = &cast.heir;
            story.succeed(&cast.user, &cast.heir);
        }),
        told("who was succeeded", &|story| {
            story.succeed(&cast.user, &cast.heir)
        }),
        told("before the succession begins", &|story| {
            story.now = before_noon();
            story.header.created = before_noon();
            story.grants.clear();
            story.add(&cast.owner, |grant| grant.not_before = before_noon());
            story.succeed(&cast.user, &cast.heir);
        }),
        told("a successor of a successor", &|story| {
            let next = key(50);
            story.sender = &cast.heir;
            story.succeed(&cast.user, &next);
            story.succeed(&next, &cast.heir);
        }),
        told("two successors", &|story| {
            story.sender = &cast.heir;
            story.succeed(&cast.user, &cast.heir);
            story.succeed(&cast.user, &cast.member);
        }),
        told("a line that is too long", &|story| {
            story.sender = &cast.heir;
            let line: Vec<_> = (50..66).map(key).collect();
            story.succeed(&cast.user, &line[0]);
            for pair in line.windows(2) {
                story.succeed(&pair[0], &pair[1]);
            }
            story.succeed(&line[15], &cast.heir);
        }),
    ];
    [
        &of_header[..],
        &of_grants,
        &of_selectors,
        &of_quota,
        &of_successions,
    ]
    .concat()
    .into()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([number; 32]))
}

fn audience_key() -> AudienceKey {
    AudienceKey::generate(&mut Seeded::new(405))
}

fn before_noon() -> Time {
    Time::from_millis(NOON.as_millis() - 1)
}
