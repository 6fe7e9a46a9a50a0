//! Signed records and files that break one rule each, beside ones that break none (`spec/06`).
//!
//! A group has a state (the first records of suite 1's story, then some of its own), something that is
//! accepted in that state, and things that are refused there, each with the clause it breaks.

mod files;
mod make;
mod records;

use bield_capsule::{
    Acknowledgement, ExportReader, ForkProof, HeadsStatement, Metadata, Proof, Question, Received,
    Suite, Verifier, VerifierPolicy, fresh,
};
use bield_envelope::Signed;
use core::time::Duration;
use serde_json::{Value, json};

use crate::cast::{Cast, NONCE, POLICY, at};

/// What is judged, and against which state.
struct Group {
    /// How its bytes are read.
    of: Of,
    /// How many records of the story come first.
    after: usize,
    /// Records that come after these.
    before: Vec<Vec<u8>>,
    /// Certificates of software TEEs count.
    simulated: bool,
    good: Vec<u8>,
    bad: Vec<Bad>,
}

type Bad = (&'static str, &'static str, Vec<u8>);

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Record,
    /// A record that is accepted, and whose body does not open.
    Body,
    Metadata,
    Proof,
    Fork,
    Acknowledgement,
    /// One replica's whole answer, about the state.
    Heads,
    Export,
}

impl Of {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Record, "record"),
        (Self::Body, "body"),
        (Self::Metadata, "metadata"),
        (Self::Proof, "proof"),
        (Self::Fork, "fork"),
        (Self::Acknowledgement, "acknowledgement"),
        (Self::Heads, "heads"),
        (Self::Export, "export"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(of, _)| *of == self).unwrap().1
    }
}

impl Group {
    fn new(of: Of, after: usize, good: Vec<u8>, bad: Vec<Bad>) -> Self {
        Self {
            of,
            after,
            before: Vec::new(),
            simulated: true,
            good,
            bad,
        }
    }

    /// A file, which stands for itself.
    fn file(of: Of, good: Vec<u8>, bad: Vec<Bad>) -> Self {
        Self::new(of, 0, good, bad)
    }

    fn before(mut self, records: Vec<Vec<u8>>) -> Self {
        self.before = records;
        self
    }

    fn state(&self, cast: &Cast) -> Verifier {
        let policy = VerifierPolicy {
            allow_simulated: self.simulated,
            ..POLICY
        };
        let mut verifier = Verifier::new(cast.metadata.clone(), policy);
        let told = cast.told[..self.after].iter();
        let own = self
            .before
            .iter()
            .map(|bytes| Received::decode(bytes.clone()).unwrap());
        for record in told.map(|told| told.record.clone()).chain(own) {
            let verified = verifier.verify(record).unwrap();
            verifier.apply(verified).unwrap();
        }
        verifier
    }
}

/// A word for why `bytes` are refused.
fn judge(of: Of, cast: &Cast, state: &Verifier, bytes: &[u8]) -> Result<(), &'static str> {
    let (name, policy) = (cast.name(), state.policy());
    let received = || Received::decode(bytes.to_vec()).map_err(|_| "malformed");
    let refused = |holds: bool| if holds { Ok(()) } else { Err(of.name()) };
    match of {
        Of::Record => state
            .verify(received()?)
            .map(drop)
            .map_err(|why| why.slug()),
        Of::Body => {
            let verified = state.verify(received()?).unwrap();
            verified
                .open(&cast.keys)
                .map(drop)
                .map_err(|_| "unreadable")
        }
        Of::Metadata => refused(Metadata::decode(bytes).is_ok()),
        Of::Proof => {
            refused(Proof::decode(bytes).is_ok_and(|proof| proof.verify(&name, policy).is_ok()))
        }
        Of::Fork => {
            refused(ForkProof::decode(bytes).is_ok_and(|proof| proof.verify(&name).is_ok()))
        }
        Of::Acknowledgement => refused(
            Signed::<Acknowledgement>::decode(bytes)
                .is_ok_and(|word| word.verify_claimed().is_ok()),
        ),
        Of::Heads => refused(Signed::<HeadsStatement>::decode(bytes).is_ok_and(|page| {
            let question = Question {
                nonce: NONCE,
                now: at(22),
                age_max: Duration::from_secs(10),
            };
            fresh(state, &[page], &question, &bield_capsule::NoHistory, &[]).is_ok()
        })),
        Of::Export => {
            let reader = ExportReader::new(bytes).map_err(|_| "export")?;
            let mut verifier = Verifier::new(reader.metadata().clone(), policy);
            for read in reader {
                let record = read.map_err(|_| "export")?.record;
                let verified = verifier.verify(record).map_err(|why| why.slug())?;
                verifier.apply(verified).map_err(|why| why.slug())?;
            }
            Ok(())
        }
    }
}

/// All groups, with the word each is refused with.
pub(crate) fn broken() -> Vec<Value> {
    let cast = Cast::new(Suite::Ed25519, None);
    let groups = records::groups(&cast)
        .into_iter()
        .chain(files::groups(&cast));
    let shown = groups.map(|group| {
        let state = group.state(&cast);
        let bad = group.bad.iter().map(|(name, clause, bytes)| {
            let refused = judge(group.of, &cast, &state, bytes);
            let refused = refused.err().unwrap_or("ACCEPTED");
            json!({"name": name, "clause": clause, "refused": refused, "bytes": hex::encode(bytes)})
        });
        let bad: Vec<_> = bad.collect();
        json!({
            "of": group.of.name(),
            "after": group.after,
            "before": group.before.iter().map(hex::encode).collect::<Vec<_>>(),
            "simulated": group.simulated,
            "good": hex::encode(&group.good),
            "bad": bad,
        })
    });
    shown.collect()
}

/// What is frozen is refused as it says, from the file alone; what is unbroken is accepted.
#[test]
fn each_broken_rule_is_refused_and_its_unbroken_twin_is_not() {
    let cast = Cast::new(Suite::Ed25519, None);
    let frozen = crate::frozen();
    let hex = crate::bytes;
    let mut names = std::collections::BTreeSet::new();
    for group in frozen["broken"].as_array().unwrap() {
        let (of, _) = Of::ALL
            .into_iter()
            .find(|(_, name)| group["of"] == *name)
            .unwrap();
        let made = Group {
            of,
            after: group["after"].as_u64().unwrap() as usize,
            before: group["before"]
                .as_array()
                .unwrap()
                .iter()
                .map(hex)
                .collect(),
            simulated: group["simulated"].as_bool().unwrap(),
            good: hex(&group["good"]),
            bad: Vec::new(),
        };
        let state = made.state(&cast);
        let first = &group["bad"][0]["name"];
        assert_eq!(
            judge(of, &cast, &state, &made.good),
            Ok(()),
            "twin of {first}"
        );
        for bad in group["bad"].as_array().unwrap() {
            let refused = judge(of, &cast, &state, &hex(&bad["bytes"]));
            assert_eq!(refused, Err(bad["refused"].as_str().unwrap()), "{bad}");
            assert!(
                names.insert(bad["name"].as_str().unwrap().to_owned()),
                "{bad}"
            );
        }
    }
    assert!(names.len() > 120, "{}", names.len());
}
