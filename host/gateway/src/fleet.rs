//! The programs this gateway keeps running, and the engine where its workers run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bield_engines::{Embedded, Engine, Openwhisk, Platform, PlatformAuth, Pool, Remote};
use bield_launcher::{Launch, SharedStorage, Supervisor};
use bield_packer::Packer;
use bield_protocol::configuration::RuntimeConfiguration;
use tokio::net::TcpListener;

use crate::driver::{Driver, Waits};
use crate::keys_port::{self, Sessions};
use crate::{Arguments, GatewayError};

/// How long a runtime that is told to end may take: it gives back what it holds of quotas.
const RUNTIME_FINISH_WAIT: Duration = Duration::from_secs(5);
/// How long the key service may take: it finishes what is queued and writes a snapshot.
const KEYS_FINISH_WAIT: Duration = Duration::from_secs(30);

/// Where the key service that this gateway starts is dialled.
pub(crate) struct Ports {
    /// Clients, and runtimes of other hosts.
    pub(crate) public: TcpListener,
    /// The other members, when there are some.
    pub(crate) members: Option<TcpListener>,
}

/// Key service (if ours) and workers. Dropping it stops them.
pub(crate) struct Fleet {
    keys: Option<Keys>,
    workers: Option<Workers>,
}

/// The workers of this gateway: where they run, and who gets what.
pub(crate) struct Workers {
    pub(crate) driver: Arc<Driver>,
    pub(crate) engine: Where,
    /// Whether none that runs is as it should be while nobody calls.
    pub(crate) may_be_none: bool,
}

/// Where workers run.
pub(crate) enum Where {
    Here(Arc<Embedded>),
    Elsewhere(Arc<dyn Engine>),
}

/// The key service and the sessions with it.
pub(crate) struct Keys {
    pub(crate) supervisor: Arc<Supervisor>,
    /// Sessions from elsewhere: none is begun once the gateway is told to stop.
    pub(crate) outside: Sessions,
    /// Sessions of the other members, which never fall silent. They go on until the key service ends, because
    /// what is in flight counts only with the others' word.
    pub(crate) members: Sessions,
    /// Sessions of own runtimes, which may have something to give back at the end.
    pub(crate) own: Sessions,
}

impl Fleet {
    /// Starts everything. The key service serves its ports before the first runtime starts, because a
    /// runtime may ask for it from its first moment.
    pub(crate) async fn start(
        arguments: &Arc<Arguments>,
        ports: Option<Ports>,
    ) -> Result<Fleet, GatewayError> {
        let mut key_services = arguments.key_services.clone();
        let keys = match ports {
            None => None,
            Some(ports) => {
                let private = keys_port::private().await?;
                key_services.insert(0, private.local_addr()?.to_string());
                let supervisor = Arc::new(blocking(arguments, start_keys).await?);
                let keys = Keys {
                    outside: Sessions::new(&supervisor),
                    members: Sessions::new(&supervisor),
                    own: Sessions::new(&supervisor),
                    supervisor,
                };
                let limits = keys_port::Limits::of(arguments);
                keys.outside.serve(ports.public, limits.public);
                if let Some(members) = ports.members {
                    keys.members.serve(members, limits.members);
                }
                keys.own.serve(private, limits.own);
                Some(keys)
            }
        };
        let fleet = Fleet {
            workers: start_workers(arguments, key_services)?,
            keys,
        };
        if let Some(workers) = &fleet.workers
            && matches!(workers.engine, Where::Here(_))
            && let Err(why) = workers.driver.all_started().await
        {
            fleet.finish().await;
            return Err(GatewayError::Worker(why));
        }
        Ok(fleet)
    }

    /// The workers, where there are to be some.
    pub(crate) fn workers(&self) -> Option<&Workers> {
        self.workers.as_ref()
    }

    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Closes the public port of the key service, and has no worker started but for requests that wait; sessions and requests
    /// that are open go on.
    pub(crate) fn drain(&self) {
        if let Some(workers) = &self.workers {
            workers.driver.drain();
        }
        if let Some(keys) = &self.keys {
            keys.outside.take_no_more();
        }
    }

    /// Waits until the last session from elsewhere ended, after [`Self::drain`].
    pub(crate) async fn sessions_end(&self) {
        if let Some(keys) = &self.keys {
            keys.outside.end().await;
        }
    }

    /// Has all programs end for good, the key service last.
    pub(crate) async fn finish(&self) {
        if let Some(workers) = &self.workers {
            workers.driver.finish().await;
        }
        if let Some(keys) = &self.keys {
            let keys = Arc::clone(&keys.supervisor);
            // Without its thread the process is ending, and the key service with it.
            let _ = tokio::task::spawn_blocking(move || keys.finish(KEYS_FINISH_WAIT)).await;
        }
    }
}

impl Workers {
    /// Whether a call would be taken: one is up, or none needs to be and nothing keeps one from starting.
    pub(crate) fn would_take_a_call(&self) -> bool {
        let places = self.driver.places();
        let up = places
            .iter()
            .any(|(_, wanted, seen)| *wanted && !seen.endpoints.is_empty());
        up || (self.may_be_none && places.iter().all(|(_, _, seen)| seen.trouble.is_none()))
    }

    /// What keeps a worker from running, in the words of the last that said something.
    pub(crate) fn trouble(&self) -> Option<String> {
        let places = self.driver.places();
        places
            .into_iter()
            .find_map(|(group, _, seen)| seen.trouble.or_else(|| self.here()?.last_words(group)))
    }

    /// The engine of this machine, if workers run here.
    pub(crate) fn here(&self) -> Option<&Embedded> {
        match &self.engine {
            Where::Here(embedded) => Some(embedded),
            Where::Elsewhere(_) => None,
        }
    }
}

/// Runs a start on a thread that may wait.
async fn blocking<T: Send + 'static>(
    arguments: &Arc<Arguments>,
    start: impl FnOnce(&Arguments) -> Result<T, GatewayError> + Send + 'static,
) -> Result<T, GatewayError> {
    let arguments = Arc::clone(arguments);
    let started = tokio::task::spawn_blocking(move || start(&arguments));
    started.await.map_err(std::io::Error::other)?
}

fn start_keys(arguments: &Arguments) -> Result<Supervisor, GatewayError> {
    // Both are required on the command line when this gateway starts the key service.
    let configuration = arguments.keys_config.as_deref().map(read).transpose()?;
    let configuration = configuration.unwrap_or_default();
    arguments.check_against(&configuration)?;
    let common = common(arguments);
    let slot = arguments.member_slot.map(|slot| slot.to_string());
    let member = slot.map(|slot| ["--member".to_owned(), slot]);
    let launch = Launch {
        program: program(arguments.keys_program.as_deref(), "bield-keys")?,
        arguments: [common.arguments, member.into_iter().flatten().collect()].concat(),
        configuration,
        storage: arguments.storage.clone(),
        members: arguments.members.clone(),
        witnesses: arguments.witness_addresses.clone(),
        ..common
    };
    Ok(Supervisor::start(launch)?)
}

fn start_workers(
    arguments: &Arguments,
    key_services: Vec<String>,
) -> Result<Option<Workers>, GatewayError> {
    let nobody_knows = (0, 0);
    let (engine, places, cores) = match &arguments.worker_addresses[..] {
        [] if arguments.openwhisk_host.is_some() => {
            let platform = platform(arguments)?;
            let places = platform.places;
            let engine = Where::Elsewhere(Arc::new(Openwhisk::new(platform)));
            (engine, places, nobody_knows)
        }
        [] if arguments.workers == 0 => return Ok(None),
        [] => {
            let pool = Pool {
                launch: runtime(arguments, key_services)?,
                places: arguments.workers.into(),
                concurrency: arguments.concurrency.into(),
                finish_wait: RUNTIME_FINISH_WAIT,
                memory_bytes_max: arguments.worker_memory_mib.map(|mib| mib << 20),
            };
            let cores = shared_cores(&pool.launch.configuration);
            let engine = Where::Here(Arc::new(Embedded::new(&pool)));
            (engine, pool.places, cores)
        }
        addresses => {
            let remote = Remote::new(addresses).map_err(|address| {
                let why = format!("--worker-address {address} is not HOST:PORT; correct it");
                GatewayError::Arguments(why)
            })?;
            let places = remote.addresses().count();
            let places = u32::try_from(places).unwrap_or(u32::MAX);
            (Where::Elsewhere(Arc::new(remote)), places, nobody_knows)
        }
    };
    let carries: Arc<dyn Engine> = match &engine {
        Where::Here(embedded) => Arc::clone(embedded) as _,
        Where::Elsewhere(engine) => Arc::clone(engine),
    };
    let waits = Waits {
        queue: Duration::from_millis(arguments.queue_ms),
        call: Duration::from_millis(arguments.call_ms),
    };
    let mut settings = arguments.settings(places);
    (settings.cores, settings.worker_cores) = cores;
    let may_be_none = settings.workers_min == 0;
    let packages = arguments.packages.clone();
    let packer = Packer::new(settings);
    Ok(Some(Workers {
        driver: Driver::start(packer, places, carries, packages, waits),
        engine,
        may_be_none,
    }))
}

/// Cores that the runtimes of this machine share, and how many of them one with this configuration can use.
fn shared_cores(configuration: &[u8]) -> (u32, u32) {
    let at_most = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let cores = std::thread::available_parallelism().map_or(0, |cores| at_most(cores.get()));
    let text = std::str::from_utf8(configuration).unwrap_or_default();
    // One that cannot be read is the runtime's to refuse.
    let computes = RuntimeConfiguration::parse(text)
        .map(|one| at_most(one.threads.saturating_mul(one.concurrency)));
    (cores, computes.unwrap_or(0))
}

/// The platform that the command line names.
fn platform(arguments: &Arguments) -> Result<Platform, GatewayError> {
    // All three are given together.
    let file = arguments.openwhisk_auth_file.clone().unwrap_or_default();
    let text = String::from_utf8(read(&file)?).unwrap_or_default();
    let auth = PlatformAuth::parse(&text).ok_or_else(|| {
        let why = format!(
            "{} (--openwhisk-auth-file) does not hold UUID:KEY; write the namespace's key into it",
            file.display()
        );
        GatewayError::Arguments(why)
    })?;
    Ok(Platform {
        host: arguments.openwhisk_host.clone().unwrap_or_default(),
        auth,
        name: arguments.openwhisk_name.clone(),
        image: arguments.openwhisk_image.clone().unwrap_or_default(),
        places: arguments.openwhisk_actions.into(),
        concurrency: arguments.concurrency.into(),
        memory_mib: arguments.openwhisk_memory_mib,
        timeout: Duration::from_millis(arguments.call_ms),
    })
}

/// What each place of the pool runs.
fn runtime(arguments: &Arguments, key_services: Vec<String>) -> Result<Launch, GatewayError> {
    // Required on the command line when there are runtimes to start.
    let configuration = arguments.runtime_config.as_deref().map(read).transpose()?;
    let mut common = common(arguments);
    if let Some(library) = &arguments.onnxruntime {
        let library = absolute(library)?;
        // The launcher's arguments are text.
        let text = library.to_str().ok_or_else(|| GatewayError::File {
            path: library.clone(),
            error: std::io::ErrorKind::InvalidFilename.into(),
        })?;
        common
            .arguments
            .extend(["--onnxruntime".to_owned(), text.to_owned()]);
    }
    Ok(Launch {
        program: program(arguments.runtime_program.as_deref(), "bield-runtime")?,
        configuration: configuration.unwrap_or_default(),
        key_services,
        packages: arguments.packages.clone(),
        shared_storage: arguments
            .state
            .as_deref()
            .map(SharedStorage::open)
            .transpose()?,
        ..common
    })
}

fn common(arguments: &Arguments) -> Launch {
    Launch {
        arguments: vec!["--tee".to_owned(), arguments.tee.clone()],
        run_directory: arguments.run_directory.clone(),
        record: arguments.record.clone(),
        ..Launch::default()
    }
}

/// The named program, or the one beside this program.
fn program(named: Option<&Path>, usual: &str) -> Result<PathBuf, GatewayError> {
    match named {
        Some(path) => absolute(path),
        None => Ok(std::env::current_exe()?.with_file_name(usual)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, GatewayError> {
    std::path::absolute(path).map_err(|error| GatewayError::File {
        path: path.into(),
        error,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, GatewayError> {
    std::fs::read(path).map_err(|error| GatewayError::File {
        path: path.into(),
        error,
    })
}
