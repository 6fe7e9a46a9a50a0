//! Where sealed records go: replicas over HTTP, a journal in this process, or nowhere.
//!
//! In: runs of one writer's records, in order. Out: what is kept of them, and how safely. Always
//! true: a replica's word counts only when it is signed by the principal that the configuration
//! names and names exactly a record that was sent.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bield_capsule::{
    Acknowledgement, CapsuleName, Head, Kept, Metadata, Received, WriterId, export_header,
    export_record,
};
use bield_envelope::{Principal, Verified};

use super::error::{Lie, ReplicaError};
use super::frames;
use super::replica::ReplicaClient;

/// Keeps a writer's records. Each sink has a thread of its own.
pub trait Sink: Send {
    /// What people call it.
    fn name(&self) -> &str;

    /// Whose acknowledgements it brings; `None` when it is no replica.
    fn principal(&self) -> Option<Principal>;

    /// Takes a run of records, which begins where the last one ended, or earlier after a failure.
    ///
    /// # Errors
    /// See [`SinkError`]: each one says what happens next.
    fn keep(&mut self, run: &[Arc<Received>]) -> Result<Stored, SinkError>;
}

/// What a sink has.
pub struct Stored {
    /// The newest record of the run that it keeps, with everything before it.
    pub head: Head,
    /// How safely.
    pub kept: Kept,
    /// Its signed word, when it is a replica.
    pub acknowledgement: Option<Verified<Acknowledgement>>,
}

/// Why a sink did not keep a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// It misses what comes before: send from there.
    #[error("it has the writer's records only up to {have:?}")]
    Gap {
        /// The newest position it has; `None` when it has nothing by this writer.
        have: Option<u64>,
    },
    /// It may work later: the same run is sent again after a pause.
    #[error("{0}")]
    Down(String),
    /// It will not take it: nothing more is sent to it.
    #[error("{0}")]
    Out(String),
    /// It has proof that the writer signed two records for one position: the writer stops.
    #[error("{0}")]
    Forked(String),
}

/// A replica over HTTP.
pub struct ReplicaSink {
    client: Arc<ReplicaClient>,
    metadata: Metadata,
    /// The owner's chain, for a replica that was not there when it was written.
    config: Arc<[Received]>,
    kept: Kept,
    introduced: bool,
    body: Vec<u8>,
}

impl ReplicaSink {
    /// Sends to `client`, and asks it to keep records as safely as `kept`. `config` is the verified
    /// config chain, from record 0: a replica that misses some of it is given it first.
    #[must_use]
    pub const fn new(
        client: Arc<ReplicaClient>,
        metadata: Metadata,
        config: Arc<[Received]>,
        kept: Kept,
    ) -> Self {
        Self {
            client,
            metadata,
            config,
            kept,
            introduced: false,
            body: Vec::new(),
        }
    }

    fn stored(
        &self,
        run: &[Arc<Received>],
        acknowledgements: Vec<Verified<Acknowledgement>>,
    ) -> Result<Stored, SinkError> {
        let writer = run.first().map(|record| record.head().writer);
        let ours = acknowledgements
            .into_iter()
            .find(|said| Some(said.writer) == writer)
            .ok_or_else(|| self.out(Lie::OtherStatement("another writer's record")))?;
        let head = ours.head();
        if !run.iter().any(|record| record.head() == head) {
            return Err(self.out(Lie::NeverWritten { head }));
        }
        Ok(Stored {
            head,
            kept: ours.kept,
            acknowledgement: Some(ours),
        })
    }

    /// Whether it proves what it says of this writer.
    fn forked(&self, writer: Option<WriterId>, said: &ReplicaError) -> SinkError {
        match writer.and_then(|writer| proven_fork(&self.client, &self.metadata.name(), &writer)) {
            Some(why) => SinkError::Forked(why),
            None => SinkError::Out(format!("{said}; it has no proof of it")),
        }
    }

    fn out(&self, lie: Lie) -> SinkError {
        SinkError::Out(self.client.lied(lie).to_string())
    }
}

impl Sink for ReplicaSink {
    fn name(&self) -> &str {
        self.client.url()
    }

    fn principal(&self) -> Option<Principal> {
        Some(self.client.principal())
    }

    fn keep(&mut self, run: &[Arc<Received>]) -> Result<Stored, SinkError> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        for record in run {
            frames::push(&mut body, record.as_bytes());
        }
        let name = self.metadata.name();
        let sent = self
            .client
            .append_frames(&name, &body, run.len(), self.kept);
        self.body = body;
        match sent {
            Ok(kept) => self.stored(run, kept.acknowledgements),
            Err(error) if matches!(error.code(), Some(FORKED)) => {
                let writer = run.first().map(|record| record.head().writer);
                Err(self.forked(writer, &error))
            }
            // It may only lack the capsule or its configuration: once, that is put right.
            Err(error)
                if !self.introduced && !matches!(error, ReplicaError::Unreachable { .. }) =>
            {
                self.introduced = true;
                introduce(&self.client, &self.metadata, &self.config, self.kept)
                    .map_err(|error| sink_error(&error))?;
                self.keep(run)
            }
            Err(error) => Err(sink_error(&error)),
        }
    }
}

/// Hands a replica a capsule and the part of its config chain that it misses.
///
/// # Errors
/// As those of [`ReplicaClient`].
pub(super) fn introduce(
    client: &ReplicaClient,
    metadata: &Metadata,
    config: &[Received],
    kept: Kept,
) -> Result<Option<Verified<Acknowledgement>>, ReplicaError> {
    client.put_capsule(metadata)?;
    let name = metadata.name();
    let all = || config.iter().map(Received::as_bytes);
    let kept = match client.append(&name, all(), kept) {
        Err(ReplicaError::Refused {
            have: Some(have), ..
        }) => {
            let from = usize::try_from(have)
                .unwrap_or(usize::MAX)
                .saturating_add(1);
            client.append(&name, all().skip(from), kept)?
        }
        kept => kept?,
    };
    if let Some(refused) = kept.refused {
        return Err(refused);
    }
    let owner = metadata.owner_id();
    let mut said = kept.acknowledgements.into_iter();
    Ok(said.find(|said| said.writer == owner))
}

/// What a replica proves of a fork of `writer`, in words.
pub(super) fn proven_fork(
    client: &ReplicaClient,
    name: &CapsuleName,
    writer: &WriterId,
) -> Option<String> {
    let proofs = client.forks(name).ok()?;
    let fork = proofs
        .iter()
        .filter_map(|proof| proof.verify(name).ok())
        .find(|fork| fork.writer == *writer)?;
    Some(format!(
        "FORKED: {}/{} is signed twice with this home's key, as {} and {}: its proof is at {}; the owner \
         must revoke the writer; do not retry",
        writer.short(),
        fork.seq,
        fork.first.hash.short(),
        fork.second.hash.short(),
        client.url()
    ))
}

fn sink_error(error: &ReplicaError) -> SinkError {
    match error {
        ReplicaError::Refused { code, have, .. } if code == GAP => SinkError::Gap { have: *have },
        ReplicaError::Unreachable { .. } | ReplicaError::Refused { retry: true, .. } => {
            SinkError::Down(error.to_string())
        }
        _ => SinkError::Out(error.to_string()),
    }
}

/// A journal in this process: an export file (`spec/06 §12`) that grows, synced after every run.
///
/// One write and one `fdatasync` a run, however many records are in it.
pub struct JournalSink {
    name: String,
    file: File,
    sync: bool,
    buffer: Vec<u8>,
}

impl JournalSink {
    /// Makes the file `path`, which begins with what comes before the writer's next record: the
    /// config chain, and the writer's own chain so far. Without `sync` the system writes when it
    /// likes: a power cut may take the last seconds.
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn create<'a>(
        path: &Path,
        metadata: &Metadata,
        before: impl IntoIterator<Item = &'a Received>,
        sync: bool,
    ) -> Result<Self, crate::FileError> {
        let at = |error| crate::FileError::io(path, error);
        let mut buffer = export_header(metadata);
        for record in before {
            export_record(record, &mut buffer);
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(at)?;
        file.write_all(&buffer).map_err(at)?;
        file.sync_all().map_err(at)?;
        Ok(Self {
            name: PathBuf::from(path).display().to_string(),
            file,
            sync,
            buffer,
        })
    }
}

impl Sink for JournalSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn principal(&self) -> Option<Principal> {
        None
    }

    fn keep(&mut self, run: &[Arc<Received>]) -> Result<Stored, SinkError> {
        self.buffer.clear();
        for record in run {
            export_record(record, &mut self.buffer);
        }
        let written = self.file.write_all(&self.buffer);
        let synced = written.and_then(|()| {
            if self.sync {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        // A write that failed may have left a part, and a sync that failed may have lost pages that
        // a second one would not mention: this file is done with.
        synced.map_err(|error| SinkError::Out(format!("{}: {error}", self.name)))?;
        let last = run
            .last()
            .ok_or_else(|| SinkError::Down("nothing to keep".to_owned()))?;
        Ok(Stored {
            head: last.head(),
            kept: if self.sync {
                Kept::Synced
            } else {
                Kept::Written
            },
            acknowledgement: None,
        })
    }
}

pub(super) const GAP: &str = "gap";
pub(super) const FORKED: &str = "forked";
