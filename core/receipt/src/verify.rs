//! The checks, in the order of the chain: key service → certificate → receipt → this answer.
//!
//! `spec/08 §6` numbers them; the numbers are repeated beside the code.

use bield_capsule::{CapsuleName, History};
use bield_envelope::{Digest, Principal, Time, Verified};
use bield_evidence::{Check, HardeningDemand, Mover, Outcome, Profile, Reference};
use bield_grant::{CLOCK_SKEW_MAX, Listing};

use crate::{
    CERTIFICATE_TIME_MAX, Reaches, Receipt, ReceiptBundle, ReceiptError, Report, StateHeads,
    StateSpan, VerifiedReceipt, WorkerCertificate, output_commitment, service_evidence_digest,
};

/// What the reader trusts before reading the receipt.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The key service, known from its verified evidence or from the owner.
    pub service: Principal,
    /// The code that the reader accepts as a runtime; `Deferred` lists it as not checked.
    pub code: Reference,
    /// Whether an answer from a software TEE is acceptable. Off unless asked for.
    pub allow_simulated: bool,
    /// Which protections of the process the reader asks for.
    pub hardening: HardeningDemand,
}

impl Anchor {
    /// Trusts `service` and its choice of code, on hardware only, hardened as the profile `cloud` asks.
    pub fn new(service: Principal) -> Self {
        Self {
            service,
            code: Reference::Deferred,
            allow_simulated: false,
            hardening: HardeningDemand::of(Profile::Cloud),
        }
    }
}

/// What the reader knows of the request and its answer; each `None` is a check not made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The sealed request that was sent: digest of all its bytes.
    pub request: Option<Digest>,
    /// The package that was asked.
    pub package: Option<Digest>,
    /// The answer that was received.
    pub output: Option<ExpectedOutput<'a>>,
    /// What is known of the state that it came from.
    pub state: ExpectedState<'a>,
}

/// What the reader knows of a state; each `None` is a check not made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpectedState<'a> {
    /// The session token in the answer. `Some` also demands that the receipt names a state at all.
    pub after: Option<&'a StateHeads>,
    /// What the reader had seen of the state before it asked.
    pub seen: Option<&'a StateHeads>,
    /// Records of the capsule.
    pub log: Option<CheckedLog<'a>>,
}

/// A capsule's records, verified by `bield_capsule::Verifier` against the capsule's name.
#[derive(Clone, Copy)]
pub struct CheckedLog<'a> {
    /// Whose records they are.
    pub capsule: CapsuleName,
    /// The records that were applied.
    pub records: &'a dyn History,
}

impl core::fmt::Debug for CheckedLog<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "CheckedLog({})", self.capsule)
    }
}

/// An answer, and the salt that came with it.
#[derive(Clone, Copy)]
pub struct ExpectedOutput<'a> {
    /// The salt of the commitment, from inside the sealed answer.
    pub salt: &'a [u8; 32],
    /// The answer's bytes.
    pub output: &'a [u8],
}

impl core::fmt::Debug for ExpectedOutput<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("ExpectedOutput(silent)")
    }
}

/// Verifies a receipt: [`examine`], then [`Report::accept`].
///
/// # Errors
/// [`ReceiptError`] with every failed check.
pub fn verify(
    bundle: &ReceiptBundle,
    anchor: &Anchor,
    expected: Expected<'_>,
    now: Time,
) -> Result<VerifiedReceipt, ReceiptError> {
    examine(bundle, anchor, expected, now).accept()
}

/// Makes every check that can be made and lists all of them (`spec/08 §6`).
pub fn examine(
    bundle: &ReceiptBundle,
    anchor: &Anchor,
    expected: Expected<'_>,
    now: Time,
) -> Report {
    let mut checks = Checks(Vec::with_capacity(CHECKS));
    let certificate = checks.certificate(bundle, anchor);
    let receipt = checks.receipt(bundle, certificate.as_ref());
    checks.evidence(bundle, certificate.as_ref());
    checks.chain(certificate.as_ref(), receipt.as_ref(), now);
    checks.protection(receipt.as_ref(), anchor);
    checks.hardening(certificate.as_ref(), anchor);
    checks.answer(receipt.as_ref(), expected);
    checks.state(receipt.as_ref(), bundle.state.as_ref(), expected.state);
    debug_assert_eq!(checks.0.len(), CHECKS);
    Report {
        checks: checks.0,
        certificate,
        receipt,
    }
}

/// The list under construction.
struct Checks(Vec<Check>);

impl Checks {
    /// 1 to 3: the key service of the anchor signed, names itself, and not for too long.
    fn certificate(
        &mut self,
        bundle: &ReceiptBundle,
        anchor: &Anchor,
    ) -> Option<Verified<WorkerCertificate>> {
        let need = format!("signed by key service {}", anchor.service);
        let verified = match bundle.certificate.clone().verify(&anchor.service) {
            Ok(certificate) => {
                self.passed("certificate-signature", &need, &need);
                certificate
            }
            Err(error) => {
                self.failed("certificate-signature", &error, &need, Mover::Operator);
                self.skipped("certificate-service", UNSIGNED, "the key service named");
                self.skipped("certificate-lifetime", UNSIGNED, "a bounded lifetime");
                return None;
            }
        };
        self.equal(
            "certificate-service",
            &verified.service,
            &anchor.service,
            Mover::Operator,
        );
        let lifetime = verified.not_after.since(verified.not_before);
        self.judge(
            "certificate-lifetime",
            lifetime <= CERTIFICATE_TIME_MAX,
            format_args!("{} s", lifetime.as_secs()),
            format_args!("at most {} s", CERTIFICATE_TIME_MAX.as_secs()),
            Mover::Operator,
        );
        Some(verified)
    }

    /// 4: the certified key signed.
    fn receipt(
        &mut self,
        bundle: &ReceiptBundle,
        certificate: Option<&Verified<WorkerCertificate>>,
    ) -> Option<Verified<Receipt>> {
        let Some(certificate) = certificate else {
            self.skipped(
                "receipt-signature",
                UNSIGNED,
                "signed by a certified worker",
            );
            return None;
        };
        let need = format!("signed by worker {}", certificate.worker);
        match bundle.receipt.clone().verify(&certificate.worker) {
            Ok(receipt) => {
                self.passed("receipt-signature", &need, &need);
                Some(receipt)
            }
            Err(error) => {
                self.failed("receipt-signature", &error, &need, Mover::Operator);
                None
            }
        }
    }

    /// 5 and 6: the evidence that came along is the one the key service vouched for.
    fn evidence(
        &mut self,
        bundle: &ReceiptBundle,
        certificate: Option<&Verified<WorkerCertificate>>,
    ) {
        const NAME: &str = "service-evidence-digest";
        let named = certificate.and_then(|certificate| certificate.service_evidence);
        match (&bundle.service_evidence, named, certificate) {
            (_, _, None) => self.skipped(NAME, UNSIGNED, "the evidence that the certificate names"),
            (None, None, _) => self.skipped(NAME, "no evidence in the bundle", "evidence"),
            (None, Some(named), _) => self.skipped(NAME, "no evidence in the bundle", named),
            (Some(bytes), Some(named), _) => self.equal(
                NAME,
                &service_evidence_digest(bytes),
                &named,
                Mover::Operator,
            ),
            // Bytes that nobody signed must not travel under a verified receipt.
            (Some(bytes), None, _) => self.failed(
                NAME,
                service_evidence_digest(bytes),
                "no evidence, since the certificate names none",
                Mover::Operator,
            ),
        }
        // Said aloud, because a reader may take the presence of evidence for its verification.
        self.skipped(
            "service-evidence",
            "the anchor's word",
            "evidence of the key service, verified (`bield verify`)",
        );
    }

    /// 7 to 10: the receipt says what its certificate allows it to say, when it allows it.
    fn chain(
        &mut self,
        certificate: Option<&Verified<WorkerCertificate>>,
        receipt: Option<&Verified<Receipt>>,
        now: Time,
    ) {
        let (Some(certificate), Some(receipt)) = (certificate, receipt) else {
            self.skipped("code", UNSIGNED, "the code that was certified");
            self.skipped("simulated", UNSIGNED, "what was certified");
            self.skipped("time", UNSIGNED, "a time within the certificate's life");
            self.skipped("not-in-the-future", UNSIGNED, "a time that has come");
            return;
        };
        self.equal("code", &receipt.code, &certificate.code, Mover::Operator);
        self.equal(
            "simulated",
            &receipt.simulated,
            &certificate.simulated,
            Mover::Operator,
        );
        self.judge(
            "time",
            certificate.not_before <= receipt.at && receipt.at < certificate.not_after,
            receipt.at,
            format_args!(
                "from {} until {}",
                certificate.not_before, certificate.not_after
            ),
            Mover::Operator,
        );
        self.judge(
            "not-in-the-future",
            receipt.at <= now.plus(CLOCK_SKEW_MAX),
            receipt.at,
            format_args!("at most a minute after {now}"),
            Mover::Operator,
        );
    }

    /// 11 and 12: the reader accepts the code and what protected it.
    fn protection(&mut self, receipt: Option<&Verified<Receipt>>, anchor: &Anchor) {
        let Some(receipt) = receipt else {
            self.skipped("accepted-code", UNSIGNED, "code that the reader accepts");
            self.skipped("hardware", UNSIGNED, "hardware protection");
            return;
        };
        match &anchor.code {
            Reference::Listed(codes) => self.judge(
                "accepted-code",
                codes.contains(&receipt.code),
                &receipt.code,
                format_args!("one of: {}", codes.iter().collect::<Listing<_>>()),
                Mover::User,
            ),
            // A kind of reference that this version does not know is no comparison either.
            _ => self.skipped(
                "accepted-code",
                &receipt.code,
                "code that the reader accepts",
            ),
        }
        let have = if receipt.simulated {
            "software TEE: no hardware protection"
        } else {
            "hardware TEE"
        };
        let need = if anchor.allow_simulated {
            "hardware TEE, or a software TEE as allowed by the reader"
        } else {
            "hardware TEE"
        };
        self.judge(
            "hardware",
            !receipt.simulated || anchor.allow_simulated,
            have,
            need,
            Mover::User,
        );
    }

    /// 13: what the process gave up, by its own word under the evidence that the key service appraised.
    fn hardening(&mut self, certificate: Option<&Verified<WorkerCertificate>>, anchor: &Anchor) {
        const NAME: &str = "hardening";
        let Some(certificate) = certificate else {
            return self.skipped(NAME, UNSIGNED, "what the runtime's process gave up");
        };
        let (kind, stated) = (certificate.code.kind(), &certificate.hardening);
        let asked = anchor.hardening.of_kind(kind);
        if asked.is_empty() {
            return self.skipped(NAME, stated, "protections that the reader asks for");
        }
        let unmet = anchor.hardening.unmet(kind, Some(stated));
        let need = format!("in force: {}", asked.iter().collect::<Listing<_>>());
        self.judge(NAME, unmet.is_empty(), stated, need, Mover::Operator);
    }

    /// 14 to 16: the receipt is about this request and this answer.
    fn answer(&mut self, receipt: Option<&Verified<Receipt>>, expected: Expected<'_>) {
        self.matches("request", receipt.map(|r| r.request), expected.request);
        self.matches("package", receipt.map(|r| r.package), expected.package);
        self.matches(
            "output",
            receipt.map(|r| r.output),
            expected
                .output
                .map(|answer| output_commitment(answer.salt, answer.output)),
        );
    }

    /// 17 to 19: the answer came from the state that it brings the heads of, which is not behind what the reader has
    /// seen, and lies in the log.
    fn state(
        &mut self,
        receipt: Option<&Verified<Receipt>>,
        carried: Option<&StateHeads>,
        expected: ExpectedState<'_>,
    ) {
        let Some(receipt) = receipt else {
            self.skipped(STATE, UNSIGNED, "heads of the state");
            self.skipped(STATE_SEEN, UNSIGNED, "what the reader has seen");
            self.skipped(STATE_LOG, UNSIGNED, "a log that has the state");
            return;
        };
        let known = expected.after.or(carried);
        let Some(span) = &receipt.state else {
            match known {
                // Heads that nobody signed must not travel under a verified receipt.
                Some(heads) => {
                    self.failed(STATE, "no state", heads.digest(), Mover::Operator);
                }
                None => self.passed(STATE, NO_STATE, NO_STATE),
            }
            match expected.seen {
                Some(_) => self.failed(STATE_SEEN, NO_STATE, "the state seen", Mover::Operator),
                None => self.passed(STATE_SEEN, NO_STATE, NO_STATE),
            }
            return self.passed(STATE_LOG, NO_STATE, NO_STATE);
        };
        let mut others = [expected.after, carried].into_iter().flatten();
        let other = others.find(|heads| heads.digest() != span.after);
        match (known, other) {
            (_, Some(other)) => {
                self.failed(STATE, span.after, other.digest(), Mover::Operator);
            }
            (Some(_), None) => self.passed(STATE, span.after, span.after),
            (None, None) => self.skipped(STATE, span.after, "heads to compare with"),
        }
        let after = known.filter(|_| other.is_none());
        self.seen(span, after, expected.seen);
        self.log(span, after, expected);
    }

    /// 18: no record that the reader has seen is missing.
    fn seen(&mut self, span: &StateSpan, after: Option<&StateHeads>, seen: Option<&StateHeads>) {
        let (Some(after), Some(seen)) = (after, seen) else {
            return self.skipped(STATE_SEEN, span.before, "heads that the reader has seen");
        };
        let found = |head: &bield_capsule::Head| match after.head_of(&head.writer) {
            Some(own) => own.to_string(),
            None => format!("no head of {}", head.writer.short()),
        };
        match after.reaches(seen) {
            Reaches::All => self.passed(STATE_SEEN, span.before, seen.digest()),
            Reaches::Behind(head) => {
                let need = format!("{head} or later, which the reader has seen");
                self.failed(STATE_SEEN, found(&head), need, Mover::Operator);
            }
            Reaches::Unknown(head) => {
                let need = format!("{head}, which the reader has seen, or a log that has both");
                self.skipped(STATE_SEEN, found(&head), need);
            }
        }
    }

    /// 19: both states are moments of the capsule, one after the other.
    fn log(&mut self, span: &StateSpan, after: Option<&StateHeads>, expected: ExpectedState<'_>) {
        let Some(log) = expected.log else {
            let have = format!("capsule {}", span.capsule);
            return self.skipped(STATE_LOG, have, "a log of it");
        };
        if log.capsule != span.capsule {
            return self.equal(STATE_LOG, &log.capsule, &span.capsule, Mover::User);
        }
        let Some(after) = after else {
            return self.skipped(STATE_LOG, span.after, "heads to look up");
        };
        let have = format!("capsule {}", log.capsule);
        let absent = |head: &bield_capsule::Head| format!("record {head} in the log");
        let outside: Vec<_> = after.outside(log.records).collect();
        // Ends of chains of which the log has nothing: of earlier holders, whose records were dropped.
        let earlier = |head: &&&bield_capsule::Head| log.records.hash_at(&head.writer, 0).is_none();
        if let Some(head) = outside.iter().find(|head| !earlier(head)) {
            return match log
                .records
                .begins(&head.writer)
                .filter(|from| head.seq < *from)
            {
                Some(from) => {
                    let have = format!("{have}, of this writer from record {from} on");
                    self.skipped(STATE_LOG, have, absent(head));
                }
                None => self.failed(STATE_LOG, have, absent(head), Mover::User),
            };
        }
        if span.before == span.after
            && let Some(head) = outside.first()
        {
            // Nothing was written: which of the heads is the newest, the log cannot tell.
            return self.skipped(STATE_LOG, have, absent(head));
        }
        let Some(before) = after.grown_from(&span.before, log.records) else {
            let need = format!("a moment {} before {}", span.before, span.after);
            return self.failed(STATE_LOG, have, need, Mover::Operator);
        };
        let unseen = |head: &&bield_capsule::Head| {
            !outside.contains(head)
                && log
                    .records
                    .begins(&head.writer)
                    .is_none_or(|from| head.seq >= from)
        };
        let mut seen = expected
            .seen
            .into_iter()
            .flat_map(|seen| seen.outside(log.records));
        if let Some(head) = seen.find(unseen) {
            return self.failed(STATE_LOG, have, absent(head), Mover::Operator);
        }
        let records = |heads: &StateHeads| -> u128 {
            let positions = heads.heads().iter();
            positions.map(|head| u128::from(head.seq) + 1).sum()
        };
        let left_out = match outside.len() {
            0 => String::new(),
            ends => format!("; {ends} ends of earlier holders are not in this log"),
        };
        let found = format!(
            "from record {} to record {} of capsule {}{left_out}",
            records(&before),
            records(after),
            log.capsule
        );
        self.passed(
            STATE_LOG,
            found,
            "both states in the log, one after the other",
        );
    }

    fn matches(&mut self, name: &'static str, found: Option<Digest>, expected: Option<Digest>) {
        match (found, expected) {
            (Some(found), Some(expected)) => self.equal(name, &found, &expected, Mover::User),
            (Some(found), None) => self.skipped(name, found, "nothing to compare with was given"),
            (None, _) => self.skipped(name, UNSIGNED, "what the reader knows"),
        }
    }

    fn equal<T: PartialEq + core::fmt::Display>(
        &mut self,
        name: &'static str,
        have: &T,
        need: &T,
        mover: Mover,
    ) {
        self.judge(name, have == need, have, need, mover);
    }

    fn judge(
        &mut self,
        name: &'static str,
        holds: bool,
        have: impl ToString,
        need: impl ToString,
        mover: Mover,
    ) {
        let outcome = if holds {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.add(name, outcome, have, need, mover);
    }

    fn passed(&mut self, name: &'static str, have: impl ToString, need: impl ToString) {
        self.add(name, Outcome::Passed, have, need, Mover::User);
    }

    fn failed(
        &mut self,
        name: &'static str,
        have: impl ToString,
        need: impl ToString,
        mover: Mover,
    ) {
        self.add(name, Outcome::Failed, have, need, mover);
    }

    fn skipped(&mut self, name: &'static str, have: impl ToString, need: impl ToString) {
        self.add(name, Outcome::NotChecked, have, need, Mover::User);
    }

    fn add(
        &mut self,
        name: &'static str,
        outcome: Outcome,
        have: impl ToString,
        need: impl ToString,
        mover: Mover,
    ) {
        self.0.push(Check {
            name,
            outcome,
            have: have.to_string(),
            need: need.to_string(),
            mover,
        });
    }
}

/// How many checks every report has, so that none can be left out silently.
const CHECKS: usize = 19;

const STATE: &str = "state";
const STATE_SEEN: &str = "state-seen";
const STATE_LOG: &str = "state-log";
const NO_STATE: &str = "no state";

const UNSIGNED: &str = "nothing: an earlier signature does not hold";
