//! Where puts become durable: in memory, on this machine's disk, at replicas in processes of their
//! own.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bield_capsule::{Durability, Kept, Received, Suite};
use bield_envelope::Principal;
use bield_sdk::Home;
use bield_sdk::capsule::{
    Appender, AppenderOptions, CreateOptions, JournalSink, Log, ReplicaClient, Sink, SinkError,
    Stored,
};
use bield_store::journal::{Journal, Options};
use bield_store::storage::{Directory, METADATA, Storage as _};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::chain::Chain;

/// How safely puts are to be kept, and by whom.
pub(crate) enum Place {
    /// Sealed, signed and let go.
    Memory,
    /// An export file on the disk, synced after every run of records.
    Disk(PathBuf),
    /// The journal of a replica, in this process, synced after every run of records.
    Segments(PathBuf),
    /// `bield-store` processes; a majority must sync.
    Stores(Vec<Store>),
}

/// An appender, its durability level, and what to keep while it works.
pub(crate) struct Started {
    pub(crate) appender: Appender,
    pub(crate) level: Durability,
    /// Syncs and bytes of a [`Place::Disk`].
    pub(crate) commits: Arc<Commits>,
    _directory: Option<TempDir>,
}

/// What a sink was given.
#[derive(Default)]
pub(crate) struct Commits {
    pub(crate) count: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Place {
    /// How people call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Disk(_) => "local-sync".to_owned(),
            Self::Segments(_) => "local-sync in a replica's journal".to_owned(),
            Self::Stores(stores) => {
                format!("replicated {} of {}", stores.len() / 2 + 1, stores.len())
            }
        }
    }

    /// Starts an appender on a capsule of its own.
    pub(crate) fn start(&self, suite: Suite, options: AppenderOptions) -> Result<Started> {
        let commits = Arc::<Commits>::default();
        let (appender, level, directory) = match self {
            Self::Memory => {
                let Chain {
                    writer, generation, ..
                } = Chain::new(suite)?;
                let appender = Appender::start(writer, generation, vec![], vec![], options)?;
                (appender, Durability::Sent, None)
            }
            Self::Disk(folder) | Self::Segments(folder) => {
                let chain = Chain::new(suite)?;
                let directory = TempDir::new_in(folder)?;
                let commits = Arc::clone(&commits);
                let sink: Box<dyn Sink> = if matches!(self, Self::Disk(_)) {
                    let file = directory.path().join("capsule");
                    let sink = JournalSink::create(&file, &chain.metadata, &chain.before, true)?;
                    Box::new(Counted(sink, commits))
                } else {
                    Box::new(Counted(
                        SegmentSink::new(directory.path(), &chain)?,
                        commits,
                    ))
                };
                let options = AppenderOptions {
                    local: Some(0),
                    ..options
                };
                let (writer, generation) = (chain.writer, chain.generation);
                let appender = Appender::start(writer, generation, vec![], vec![sink], options)?;
                (appender, Durability::LocalSync, Some(directory))
            }
            Self::Stores(stores) => {
                let directory = TempDir::new()?;
                let home = Home::at(directory.path());
                let create = CreateOptions {
                    label: None,
                    suite,
                    replicas: stores.iter().map(|store| store.url.clone()).collect(),
                    quorum: None,
                    certifiers: Vec::new(),
                    witnesses: Vec::new(),
                    witness_quorum: 0,
                };
                let appender = Log::create(&home, &create)?.appender(options)?;
                let quorum = u8::try_from(stores.len() / 2 + 1)?;
                (appender, Durability::Replicated(quorum), Some(directory))
            }
        };
        Ok(Started {
            appender,
            level,
            commits,
            _directory: directory,
        })
    }
}

/// Counts what goes into a sink.
struct Counted<S>(S, Arc<Commits>);

impl<S: Sink> Sink for Counted<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn principal(&self) -> Option<Principal> {
        self.0.principal()
    }

    fn keep(&mut self, run: &[Arc<Received>]) -> Result<Stored, SinkError> {
        let bytes: usize = run.iter().map(|record| record.as_bytes().len()).sum();
        self.1.count.fetch_add(1, Relaxed);
        self.1.bytes.fetch_add(bytes as u64, Relaxed);
        self.0.keep(run)
    }
}

/// Appends to a replica's journal and syncs, as a replica does.
struct SegmentSink(Box<dyn Journal>);

impl SegmentSink {
    fn new(folder: &Path, chain: &Chain) -> Result<Self> {
        let storage = Directory::at(folder)?;
        let name = chain.metadata.name();
        storage.put(&name, METADATA, chain.metadata.as_bytes())?;
        let mut visit = |_, _: &[u8]| ControlFlow::Continue(());
        let mut journal = storage.journal(&name, Options::default(), &mut visit)?;
        journal.append(&chain.before.each_ref().map(Received::as_bytes))?;
        journal.sync()?;
        Ok(Self(journal))
    }
}

impl Sink for SegmentSink {
    fn name(&self) -> &str {
        "segments"
    }

    fn principal(&self) -> Option<Principal> {
        None
    }

    fn keep(&mut self, run: &[Arc<Received>]) -> Result<Stored, SinkError> {
        let records: Vec<_> = run.iter().map(|record| record.as_bytes()).collect();
        let kept = self.0.append(&records).and_then(|_| self.0.sync());
        kept.map_err(|error| SinkError::Out(error.to_string()))?;
        let last = run
            .last()
            .ok_or_else(|| SinkError::Down("nothing to keep".to_owned()))?;
        Ok(Stored {
            head: last.head(),
            kept: Kept::Synced,
            acknowledgement: None,
        })
    }
}

/// A `bield-store` process, which ends with this.
pub(crate) struct Store {
    pub(crate) url: String,
    child: Child,
    _data: TempDir,
}

impl Store {
    /// Starts one with its data below `folder`.
    pub(crate) fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let program = programs.join("bield-store");
        ensure!(program.is_file(), "{} is not built", program.display());
        let data = TempDir::new_in(folder)?;
        let port = free_port()?;
        let child = Command::new(program)
            .args(["--owners", "any", "--until-stdin-ends"])
            .arg("--data")
            .arg(data.path())
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("starting bield-store")?;
        let mut store = Self {
            url: format!("http://127.0.0.1:{port}"),
            child,
            _data: data,
        };
        let begin = Instant::now();
        while ReplicaClient::introduce(&store.url).is_err() {
            if let Some(status) = store.child.try_wait()? {
                bail!("bield-store ended with {status}");
            }
            ensure!(begin.elapsed() < START_WAIT, "bield-store does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(store)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Ends a process in order, and waits until it has.
pub(crate) fn stop(child: &mut Child) {
    drop(child.stdin.take());
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = Pid::from_raw(pid)
    {
        let _ = kill_process(pid, Signal::TERM);
    }
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begin.elapsed() > STOP_WAIT {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port of the loopback that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const START_WAIT: Duration = Duration::from_secs(10);
const STOP_WAIT: Duration = Duration::from_secs(5);
