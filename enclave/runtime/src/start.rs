//! From configuration bytes to a program that may serve.
//!
//! ```text
//! bytes ─digest─▶ TEE: own measurement ─▶ harden ─▶ parse ─▶ own evidence ─▶ engine ─▶ confine ─▶ Program
//! ```
//!
//! Always true: the configuration is measured as it came, before it is read; the process is hardened before
//! it can hold a key; a configuration that could never serve is refused with a sentence.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bield_door::Offers;
use bield_envelope::{Digest, SigningKey};
use bield_evidence::{Roots, claims_report_data, configuration_digest, verify};
use bield_grant::{REPLAY_ENTRIES_MAX, ReplayGuard};
use bield_platform::{
    Code, Hardening, Randomness, Tee, TeeError, confine, harden, lock_regions, software,
};
use bield_protocol::configuration::RuntimeConfiguration;
use bield_session::{Expect, Freshness, Role};

use crate::batches::{Batching, COMPARED_ONE_IN, Trial};
use crate::call::Runtime;
use crate::clock::{Clock, MachineClock};
use crate::engines;
use crate::functions::states::HostStorage;
use crate::functions::{Functions, FunctionsEngine, Reach, States};
use crate::key_service::KeyService;
use crate::leases::Leases;
use crate::loading::{HostPackages, Loader, Unfit};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::program::{Facts, Program, call_threads, output_bytes};
use crate::tenancy::Tenancy;
use crate::tiers::{Opener, Patience, Tiers};
use crate::turns::{Gate, Turns};
use crate::unsent::Unsent;

/// Most threads of one run or one opening: the cores of a large machine.
const THREADS_MAX: usize = 256;
/// Most requests computed at once.
const CONCURRENCY_MAX: usize = 64;
/// Most requests in one run: beyond some tens, more gain nothing.
const REQUESTS_TOGETHER_MAX: usize = 64;
/// Longest wait for others to run with; longer is no answer to a person.
const BATCHING_US_MAX: u32 = 100_000;
/// Most requests that may wait; each waits as an open visit.
const QUEUE_MAX: usize = 4096;
/// Most memory for models, MiB (1 TiB).
const MODELS_MIB_MAX: u64 = 1 << 20;

/// Which TEE the program runs in, as its launcher says; what is true the evidence shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeeAddress(PathBuf);

/// The text names no TEE that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a TEE is written software:/path/of/its/socket")]
pub struct TeeAddressError;

impl FromStr for TeeAddress {
    type Err = TeeAddressError;

    fn from_str(text: &str) -> Result<Self, TeeAddressError> {
        let path = text.strip_prefix("software:").map(Path::new);
        path.filter(|path| path.is_absolute())
            .map(|path| Self(path.to_path_buf()))
            .ok_or(TeeAddressError)
    }
}

impl TeeAddress {
    fn connect(&self, configuration: Digest) -> Result<Arc<dyn Tee>, TeeError> {
        Ok(Arc::new(software::connect(&self.0, configuration)?))
    }
}

/// Makes the program that the configuration describes.
///
/// # Errors
/// One sentence for the launcher's operator.
pub(crate) fn start(
    address: &TeeAddress,
    onnxruntime: Option<&Path>,
    configuration: &[u8],
) -> anyhow::Result<Program> {
    let tee = address.connect(configuration_digest(configuration))?;
    // Before any thread starts: one of the protections is inherited by threads, not shared with them.
    let hardening = harden().and(lock_regions());
    let configuration = parse(configuration)?;
    let roots = configuration.key_service.roots()?;
    let policy = configuration.key_service.clone().into_policy()?;
    let simulated = is_simulated(&*tee, &roots)?;

    let offers = Arc::new(Offers::new());
    let signer = SigningKey::generate(&mut Randomness);
    // Fresh: a lease is fetched every ten minutes, so a new quote costs little and leaves nothing to clocks.
    let expect = Expect::attested(Role::KeyService, roots, policy, None, Freshness::Fresh);
    let code = tee.measurement().clone();
    let worker = signer.principal();
    let clock: Arc<dyn Clock> = Arc::new(MachineClock::new());
    let not_fresh = Arc::default();
    let metrics = Metrics::new(Arc::clone(&not_fresh));
    let engine = engines::open(&configuration, onnxruntime)?;

    let loader = Arc::new(Loader {
        packages: Box::new(HostPackages(Arc::clone(&offers))),
        engine,
        threads: configuration.threads,
        unfit: Unfit::default(),
        trial: configuration.batching.as_ref().map(|batching| Trial {
            requests_max: batching.requests_max,
            counts: Arc::clone(&metrics.batches),
        }),
    });
    let (concurrency, queue_max) = (configuration.concurrency, configuration.queue_max);
    let waiting = call_threads(concurrency, queue_max) - concurrency;
    // A quarter of the threads that wait is left for calls whose model is open.
    let models = Models::new(configuration.models_mib_max << 20).with_places(waiting - waiting / 4);
    let models = Arc::new(models);
    let tenancy = Arc::<Tenancy>::default();
    let tiers = match configuration.tiered {
        true => Some(Tiers::start(Opener {
            loader: Arc::clone(&loader),
            models: Arc::clone(&models),
            tenancy: Arc::clone(&tenancy),
            counts: Arc::clone(&metrics.tiers),
            patience: Patience::default(),
        })?),
        false => None,
    };

    let functions = configuration.functions.as_ref();
    let functions = functions.map(|functions| FunctionsEngine::start(functions, &*tee));
    let functions = functions.transpose()?;

    // The engines are made, and with them whatever they read or load; threads that start later are confined, too.
    let hardening = hardening.and(confine(&*tee, code_of(&configuration)));
    // Only now: its evidence states what was given up.
    let key_service = KeyService::new(
        Arc::clone(&offers),
        tee,
        expect,
        worker,
        Arc::clone(&clock),
        hardening.stated(),
        not_fresh,
    )?;
    let key_service = Arc::new(key_service);
    let source = Box::new(Arc::clone(&key_service));
    let leases = Arc::new(Leases::new(source, Arc::clone(&clock), waiting));
    let turns = Arc::new(Turns::new(configuration.concurrency));
    let functions = functions.map(|engine| {
        let storage = Box::new(HostStorage::new(&offers));
        let states = States::new(storage, Box::new(key_service), clock, simulated);
        let reach = Reach {
            leases: Arc::clone(&leases),
            models: Arc::clone(&models),
            loader: Arc::clone(&loader),
            turns: Arc::clone(&turns),
        };
        Functions::new(engine, states, Arc::new(reach))
    });

    let runtime = Runtime {
        leases,
        models,
        loader,
        tiers,
        functions,
        batching: configuration.batching.as_ref().map(|batching| Batching {
            wait: Duration::from_micros(batching.wait_us.into()),
            requests_max: batching.requests_max,
            across_users: batching.across_users,
            compared_one_in: COMPARED_ONE_IN,
        }),
        guard: Mutex::new(ReplayGuard::new(REPLAY_ENTRIES_MAX)),
        turns,
        tenancy,
        queue_wait: Duration::from_millis(configuration.queue_ms_max.into()),
        gate: Gate::new(configuration.concurrency + configuration.queue_max),
        unsent: Unsent::new(output_bytes(configuration.concurrency)),
        signer,
        code,
        metrics,
    };
    let facts = facts(&runtime, simulated, &hardening);
    Ok(Program::new(
        runtime,
        offers,
        (configuration.concurrency, configuration.queue_max),
        facts,
    )?)
}

/// Functions are compiled here.
const fn code_of(configuration: &RuntimeConfiguration) -> Code {
    match configuration.functions {
        Some(_) => Code::Compiled,
        None => Code::Fixed,
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<RuntimeConfiguration> {
    let text = std::str::from_utf8(bytes).context("the configuration is not UTF-8")?;
    let configuration = RuntimeConfiguration::parse(text)?;
    let RuntimeConfiguration {
        threads,
        concurrency,
        queue_max,
        models_mib_max,
        ..
    } = &configuration;
    let within = |name: &str, value: usize, least: usize, most: usize| {
        ensure!(
            (least..=most).contains(&value),
            "{name} is {value}; choose {least} to {most}"
        );
        Ok(())
    };
    within("threads", *threads, 1, THREADS_MAX)?;
    within("concurrency", *concurrency, 1, CONCURRENCY_MAX)?;
    within("queue_max", *queue_max, 0, QUEUE_MAX)?;
    ensure!(
        (1..=MODELS_MIB_MAX).contains(models_mib_max),
        "models_mib_max is {models_mib_max}; choose 1 to {MODELS_MIB_MAX}"
    );
    if let Some(functions) = &configuration.functions {
        within(
            "functions.instances_max",
            functions.instances_max as usize,
            1,
            256,
        )?;
        let mib = functions.instance_mib_max;
        ensure!(
            (1..=1024).contains(&mib),
            "functions.instance_mib_max is {mib}; choose 1 to 1024"
        );
    }
    if let Some(batching) = &configuration.batching {
        let most = REQUESTS_TOGETHER_MAX;
        within("batching.requests_max", batching.requests_max, 2, most)?;
        let wait = batching.wait_us;
        ensure!(
            wait <= BATCHING_US_MAX,
            "batching.wait_us is {wait}; choose 0 to {BATCHING_US_MAX}"
        );
    }
    ensure!(
        !configuration.key_service.measurements.is_empty(),
        "key_service.measurements is empty, so no key service would ever be accepted; name one"
    );
    Ok(configuration)
}

/// Whether own evidence shows real hardware. Evidence that does not verify here shows nothing.
fn is_simulated(tee: &dyn Tee, roots: &Roots) -> anyhow::Result<bool> {
    let evidence = tee.evidence(&claims_report_data(b"bield-runtime: who am I"))?;
    match verify(&evidence, roots, bield_platform::now()) {
        Ok(claims) if claims.measurement == *tee.measurement() => Ok(claims.simulated),
        Ok(claims) => bail!(
            "the TEE said that this program is {} and attests {}; it is broken",
            tee.measurement(),
            claims.measurement
        ),
        Err(_) => Ok(true),
    }
}

fn facts(runtime: &Runtime, simulated: bool, hardening: &Hardening) -> Facts {
    Facts {
        measurement: runtime.code.to_string(),
        simulated,
        hardening: hardening.applied.iter().map(ToString::to_string).collect(),
        missing: hardening.failed.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).err().unwrap().to_string()
    }

    #[test]
    fn a_tee_is_named_by_an_absolute_path() {
        assert!("software:/run/tee.sock".parse::<TeeAddress>().is_ok());
        for text in [
            "",
            "software:",
            "software:tee.sock",
            "sgx:",
            "/run/tee.sock",
        ] {
            assert_eq!(text.parse::<TeeAddress>(), Err(TeeAddressError), "{text}");
        }
    }

    #[test]
    fn a_configuration_that_could_never_serve_is_refused_with_a_sentence() {
        let good = "[key_service]\nprofile = \"dev\"\nmeasurements = [\"sgx:00\"]\n";
        assert!(parse(good.as_bytes()).is_ok());
        assert!(refused(&format!("threads = 0\n{good}")).contains("threads is 0; choose 1 to 256"));
        assert!(refused(&format!("concurrency = 65\n{good}")).contains("1 to 64"));
        assert!(refused(&format!("models_mib_max = 0\n{good}")).contains("models_mib_max"));
        let batching = "[batching]\nwait_us = 100001\nrequests_max = 8\n";
        assert!(refused(&format!("{good}{batching}")).contains("wait_us is 100001"));
        let batching = "[batching]\nwait_us = 1\nrequests_max = 1\n";
        assert!(refused(&format!("{good}{batching}")).contains("choose 2 to 64"));
        assert!(refused("[key_service]\nprofile = \"dev\"\n").contains("measurements is empty"));
        assert!(refused(&format!("thread = 1\n{good}")).contains("does not parse"));
        assert!(parse(&[0xff]).is_err());
    }
}
