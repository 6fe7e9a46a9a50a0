//! One connection: a hello, then questions in order.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bield_envelope::{Time, wire};
use bield_evidence::{Endorsements, Evidence, Measurement, TeeKind, software_measurement};
use bield_platform::software::{
    ANSWER_BYTES_MAX, Answer, CONTEXT_BYTES_MAX, Hello, QUESTION_BYTES_MAX, Question, Refusal,
    Welcome, read, write,
};

use crate::measure::Digests;
use crate::peer::{MeasureError, Peer};
use crate::{CollateralOptions, Kind, Platform, SgxReport, SoftwareTeeError};

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) platform: std::sync::Arc<Platform>,
    pub(crate) digests: Digests,
    /// Collateral for SGX quotes and when it was issued.
    pub(crate) collateral: Mutex<Option<(Time, Vec<u8>)>>,
}

/// Serves `stream` until the peer leaves or says something that is not served.
pub(crate) fn connection(shared: &Shared, stream: &UnixStream) {
    let Some(measurement) = introduce(shared, stream) else {
        return;
    };
    // Any trouble on the way ends the connection: the peer knows, and nobody else is concerned.
    while let Ok(frame) = read(stream, QUESTION_BYTES_MAX, IDLE) {
        let answer = match wire::decode(&frame, QUESTION_BYTES_MAX) {
            Ok(question) => answer(shared, &measurement, question),
            Err(_) => Answer::Refused(Refusal::Malformed),
        };
        if reply(stream, &answer).is_none() || matches!(answer, Answer::Refused(_)) {
            return;
        }
    }
}

/// Tells a peer that there is no room, without waiting for its question.
pub(crate) fn refuse_busy(stream: &UnixStream) {
    let _ = reply(stream, &Answer::Refused(Refusal::Busy));
}

/// Takes the hello and measures the peer.
fn introduce(shared: &Shared, stream: &UnixStream) -> Option<Measurement> {
    let frame = read(stream, QUESTION_BYTES_MAX, HELLO).ok()?;
    let welcomed = match wire::decode(&frame, QUESTION_BYTES_MAX) {
        Ok(Question::Hello(hello)) => welcome(shared, stream, &hello),
        Ok(_) => Err(Refusal::OutOfOrder),
        Err(_) => Err(Refusal::Malformed),
    };
    match welcomed {
        Ok(welcome) => {
            let measurement = welcome.measurement.clone();
            reply(stream, &Answer::Welcome(welcome))?;
            Some(measurement)
        }
        Err(refusal) => {
            let _ = reply(stream, &Answer::Refused(refusal));
            None
        }
    }
}

fn welcome(shared: &Shared, stream: &UnixStream, hello: &Hello) -> Result<Welcome, Refusal> {
    let secret = shared.platform.secret();
    let peer = Peer::of(stream)?;
    let program = peer
        .program(secret, &shared.digests, hello.ticket.as_ref())
        .map_err(|error| {
            eprintln!("bield-software-tee: cannot measure a program: {error}");
            match error {
                MeasureError::Refused(refusal) => refusal,
                MeasureError::Unreadable(_) => Refusal::NotMeasurable,
            }
        })?;
    Ok(Welcome {
        measurement: software_measurement(program, hello.configuration),
        ticket: peer.ticket(secret, program),
    })
}

fn answer(shared: &Shared, measurement: &Measurement, question: Question) -> Answer {
    match question {
        Question::Quote(report_data) => quote(shared, measurement, *report_data)
            .map(Answer::Quoted)
            .unwrap_or_else(|error| {
                eprintln!("bield-software-tee: cannot quote: {error}");
                Answer::Refused(Refusal::Failed)
            }),
        Question::SealKey(context) if context.len() > CONTEXT_BYTES_MAX => {
            Answer::Refused(Refusal::ContextTooLong)
        }
        Question::SealKey(context) => Answer::Key(shared.platform.seal_key(measurement, &context)),
        _ => Answer::Refused(Refusal::OutOfOrder),
    }
}

fn quote(
    shared: &Shared,
    measurement: &Measurement,
    report_data: [u8; 64],
) -> Result<Evidence, SoftwareTeeError> {
    let report = SgxReport {
        measurement: measurement
            .as_bytes()
            .try_into()
            .expect("a software measurement has 32 bytes"),
        signer: *b"BIELD SOFTWARE TEE: NO SIGNER   ",
        report_data,
        ..SgxReport::default()
    };
    Ok(Evidence {
        kind: TeeKind::Sgx,
        quote: shared.platform.sgx_quote(&report),
        claims_buffer: Vec::new(),
        endorsements: Endorsements::Dcap(shared.collateral(bield_platform::now())?),
    })
}

impl Shared {
    /// Collateral issued within the last hour; four signatures are not worth making each time.
    fn collateral(&self, now: Time) -> Result<Vec<u8>, SoftwareTeeError> {
        let mut cached = self
            .collateral
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            // A clock that was set back makes the issue date lie in the future: issue again.
            Some((issued, json)) if *issued <= now && now.since(*issued) < COLLATERAL_AGE_MAX => {
                Ok(json.clone())
            }
            _ => {
                let options = CollateralOptions::at(now);
                let json = self.platform.collateral(Kind::Sgx, &options)?;
                *cached = Some((now, json.clone()));
                Ok(json)
            }
        }
    }
}

fn reply(stream: &UnixStream, answer: &Answer) -> Option<()> {
    let bytes = wire::encode_secret(answer);
    debug_assert!(bytes.len() <= ANSWER_BYTES_MAX);
    write(stream, &bytes).ok()
}

/// A peer that connects knows what it wants to say.
const HELLO: Duration = Duration::from_secs(5);

/// Enclave programs ask rarely; their clients connect again when needed.
const IDLE: Duration = Duration::from_secs(600);

/// Issued documents are valid for thirty days; an hour keeps "now" honest.
const COLLATERAL_AGE_MAX: Duration = Duration::from_secs(3600);
