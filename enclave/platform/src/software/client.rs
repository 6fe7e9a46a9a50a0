//! The client: one connection, reopened when it breaks.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bield_envelope::{Digest, Secret, wire};
use bield_evidence::{Evidence, Measurement, TeeKind};

use super::frame::{self, FrameError};
use super::protocol::{
    ANSWER_BYTES_MAX, Answer, CONTEXT_BYTES_MAX, Hello, Question, Ticket, Welcome,
};
use crate::{Tee, TeeError};

/// Connects to the software TEE at `socket` and is measured together with `configuration`.
///
/// Call it before [`harden`](crate::harden): a hardened process cannot be measured.
///
/// # Errors
/// When nothing answers there, or it refuses.
pub fn connect(socket: &Path, configuration: Digest) -> Result<SoftwareTee, TeeError> {
    let (stream, welcome) = open(socket, configuration, None)?;
    Ok(SoftwareTee {
        socket: socket.to_path_buf(),
        configuration,
        measurement: welcome.measurement,
        ticket: welcome.ticket,
        stream: Mutex::new(Some(stream)),
    })
}

/// A connection to the software TEE. It protects nothing; see `bield-software-tee`.
pub struct SoftwareTee {
    socket: PathBuf,
    configuration: Digest,
    measurement: Measurement,
    ticket: Ticket,
    stream: Mutex<Option<UnixStream>>,
}

impl Tee for SoftwareTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn measurement(&self) -> &Measurement {
        &self.measurement
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, TeeError> {
        match self.ask(&Question::Quote((*report_data).into()))? {
            Answer::Quoted(evidence) => Ok(evidence),
            _ => Err(TeeError::Unexpected),
        }
    }

    fn seal_key(&self, context: &str) -> Result<Secret, TeeError> {
        if context.len() > CONTEXT_BYTES_MAX {
            return Err(TeeError::ContextTooLong {
                bytes: context.len(),
                max: CONTEXT_BYTES_MAX,
            });
        }
        match self.ask(&Question::SealKey(context.to_owned()))? {
            Answer::Key(key) => Ok(key),
            _ => Err(TeeError::Unexpected),
        }
    }

    fn reconnects(&self) -> bool {
        true
    }
}

impl SoftwareTee {
    /// Asks on the open connection; on a broken one asks again on a new one, once. Questions change
    /// nothing at the other end, so asking twice is harmless.
    fn ask(&self, question: &Question) -> Result<Answer, TeeError> {
        let mut slot = self.stream();
        if let Some(stream) = slot.take() {
            match exchange(&stream, question) {
                Err(TeeError::Exchange(error)) if error.is_broken_connection() => {}
                // Late bytes would answer the next question: an odd connection is not kept.
                Err(error) => return Err(error),
                Ok(answer) => {
                    *slot = Some(stream);
                    return Ok(answer);
                }
            }
        }
        let stream = self.reopen()?;
        let answer = exchange(&stream, question)?;
        *slot = Some(stream);
        Ok(answer)
    }

    fn reopen(&self) -> Result<UnixStream, TeeError> {
        let ticket = Some(self.ticket.clone());
        let (stream, welcome) = open(&self.socket, self.configuration, ticket)?;
        if welcome.measurement != self.measurement {
            return Err(TeeError::MeasurementChanged);
        }
        Ok(stream)
    }

    fn stream(&self) -> MutexGuard<'_, Option<UnixStream>> {
        // A panic elsewhere leaves the slot empty or whole, never half-used.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(
    socket: &Path,
    configuration: Digest,
    ticket: Option<Ticket>,
) -> Result<(UnixStream, Welcome), TeeError> {
    let stream = UnixStream::connect(socket).map_err(|source| TeeError::Unreachable {
        path: socket.to_path_buf(),
        source,
    })?;
    let hello = Hello {
        configuration,
        ticket,
    };
    match exchange(&stream, &Question::Hello(hello))? {
        Answer::Welcome(welcome) => Ok((stream, welcome)),
        _ => Err(TeeError::Unexpected),
    }
}

fn exchange(stream: &UnixStream, question: &Question) -> Result<Answer, TeeError> {
    // A busy server refuses and closes before it reads; its reason is still there to be read.
    let sent = frame::write(stream, &wire::encode(question));
    let frame = match (frame::read(stream, ANSWER_BYTES_MAX, ANSWER), sent) {
        (Err(FrameError::Closed), Err(unsent)) => return Err(unsent.into()),
        (received, _) => received?,
    };
    match wire::decode(&frame, ANSWER_BYTES_MAX)? {
        Answer::Refused(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// Hashing a large program on a busy machine takes seconds; a quote takes a millisecond.
const ANSWER: Duration = Duration::from_secs(30);
