//! `bield dev`: the whole system on this machine, in the foreground.
//!
//! ```text
//! bield dev ─▶ keys.toml, runtime.toml ─measure─▶ trust.toml
//!     ├─▶ bield-software-tee  (quotes; protects nothing)
//!     └─▶ bield-gateway ─▶ bield-keys, bield-runtime …
//! ```
//!
//! Always true: everything that was started is stopped again, whichever way this ends; a program that
//! dies is reported with its last lines.

mod deployment;
mod function;
mod program;
mod ready;
mod stop;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bield_sdk::{Home, Kind};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use deployment::Deployment;
use function::Development;
use program::{Program, Programs, Scratch};
use stop::{Event, Events};

/// Run everything on this machine, for development: SOFTWARE TEE, no hardware protection
///
/// Starts a software TEE, the gateway, the key service and the runtimes from the programs beside this
/// one (cargo build --release), writes their measured configurations and a trust file for clients, and
/// runs until Ctrl-C. Evidence is made and verified exactly as with hardware; only its root is a local
/// one, which is why every verdict says SIMULATED and every default policy refuses it.
///
/// State stays in DIR: packages, the key service's sealed state (one per measurement: a rebuilt key
/// service starts empty, because it cannot open what another program sealed), logs, and the home of the
/// key service's administrator: bield --home DIR/administrator recover make ...
///
/// With --function, also builds and deploys a function from its folder, again whenever a file changes that its bield.toml
/// names under `watch`, and shows the lines of its log. The home needs nothing before: an identity and the trust are
/// made, so that `bield call NAME` works beside it. Each build is a version of its own (VERSION-dev.N; the last but one is
/// deleted); the state stays. A build that fails is shown, and the version before goes on.
///
/// With --json, one line is printed when everything is ready: gateway, key_service, trust, measurements; with
/// --function, one more for each version, failure and line of the log.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Dev {
    /// Build and deploy this function, again when it changes: its directory, or its bield.toml
    #[arg(long, value_name = "DIR")]
    function: Option<PathBuf>,

    /// Where configuration, packages, state and logs are kept
    #[arg(long, value_name = "DIR", default_value = ".bield-dev")]
    dir: PathBuf,

    /// Address of the gateway; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8790")]
    listen: SocketAddr,

    /// Address of the key service; port 0 as above
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8791")]
    keys_listen: SocketAddr,

    /// How many runtimes to run at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,

    /// How many to run even when nobody calls; 0 starts the first one for the first call [default: as --workers]
    #[arg(long, value_name = "N")]
    workers_min: Option<u16>,

    /// How requests find runtimes: bield, fnpacker, one-per-model or all-in-one [default: bield]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// A line for the runtimes' measured configuration, such as threads=4; repeat for more
    #[arg(long, value_name = "KEY=VALUE")]
    runtime_config_extra: Vec<String>,

    /// Further argument for bield-gateway, such as --gateway-extra=--queue=8; repeat for more
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    gateway_extra: Vec<String>,

    /// Also write every byte the gateway carries to DIR: what an attacker in its place would see
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,

    /// Show the programs' logs here as well as in DIR/logs
    #[arg(long)]
    logs: bool,

    /// Stop when standard input ends, so that a program that starts this one takes it along
    #[arg(long)]
    until_stdin_ends: bool,
}

impl Dev {
    pub(crate) fn run(mut self, home: &Home, output: Output) -> Result<(), Failure> {
        if let Some(function) = &self.function {
            super::folder::described(function)?;
            function::own_trust(home)?;
        }
        let programs = Programs::beside_this_one()?;
        // Held until the gateway takes them, so that the trust file names ports that are this deployment's.
        let ports = [
            free(&mut self.listen, "--listen")?,
            free(&mut self.keys_listen, "--keys-listen")?,
        ];
        output.note(BANNER);
        let scratch = Scratch::make()?;
        let deployment = Deployment::write(
            &self.dir,
            &programs,
            &self.runtime_config_extra,
            self.listen,
            self.keys_listen,
        )?;
        if deployment.starts_empty_again {
            output.note(
                "note: the key service changed since last time and starts empty: register and grant again",
            );
        }
        let events = Events::listen(self.until_stdin_ends)?;
        let tee = self.start_tee(&programs, &scratch, &events)?;
        let Some(tee) = tee else { return Ok(()) };
        drop(ports);
        let gateway = self.start_gateway(&programs, &scratch, &deployment)?;
        let mut running = [gateway, tee];
        let ready = self.wait_until_ready(&mut running, &events, output);
        let ended = match ready {
            Ok(true) => {
                self.announce(&deployment, output);
                let development = self.develop(home, &deployment, &events, output);
                development.and_then(|mut development| {
                    wait_for_the_end(&mut running, &events, development.as_mut())
                })
            }
            Ok(false) => Ok(()),
            Err(failure) => Err(failure),
        };
        // The gateway first: it stops its programs, which still need the software TEE meanwhile.
        running.iter_mut().for_each(Program::stop);
        output.note("stopped");
        ended
    }

    fn develop<'h>(
        &self,
        home: &'h Home,
        deployment: &Deployment,
        events: &'h Events,
        output: Output,
    ) -> Result<Option<Development<'h>>, Failure> {
        let begin = |function: &PathBuf| {
            let dir = self.dir.clone();
            Development::begin(home, output, events, function, &deployment.trust, dir)
        };
        self.function.as_ref().map(begin).transpose()
    }

    /// `None` when told to stop meanwhile.
    fn start_tee(
        &self,
        programs: &Programs,
        scratch: &Scratch,
        events: &Events,
    ) -> Result<Option<Program>, Failure> {
        let arguments = [
            "--state".into(),
            self.dir.join("tee").into_os_string(),
            "--socket".into(),
            scratch.socket().into_os_string(),
        ];
        let mut tee = Program::start(
            &programs.software_tee,
            &arguments,
            &self.logs_dir(),
            self.logs,
        )?;
        let until = Instant::now() + TEE_WAIT;
        while std::os::unix::net::UnixStream::connect(scratch.socket()).is_err() {
            tee.check_alive()?;
            if Instant::now() > until {
                return Err(tee.failure("does not listen"));
            }
            if matches!(events.wait(POLL), Event::Stop) {
                return Ok(None);
            }
        }
        Ok(Some(tee))
    }

    fn start_gateway(
        &self,
        programs: &Programs,
        scratch: &Scratch,
        deployment: &Deployment,
    ) -> Result<Program, Failure> {
        let mut tee = std::ffi::OsString::from("software:");
        tee.push(scratch.socket());
        let mut arguments = vec![
            "--listen".into(),
            self.listen.to_string().into(),
            "--keys-listen".into(),
            self.keys_listen.to_string().into(),
            "--keys-program".into(),
            programs.keys.clone().into_os_string(),
            "--runtime-program".into(),
            programs.runtime.clone().into_os_string(),
            "--keys-config".into(),
            deployment.keys_config.clone().into_os_string(),
            "--runtime-config".into(),
            deployment.runtime_config.clone().into_os_string(),
            "--tee".into(),
            tee,
            "--packages".into(),
            self.dir.join("packages").into_os_string(),
            "--storage".into(),
            deployment.storage.clone().into_os_string(),
            "--state".into(),
            self.dir.join("state").into_os_string(),
            "--workers".into(),
            self.workers.to_string().into(),
            "--run-directory".into(),
            scratch.path().as_os_str().to_owned(),
        ];
        if let Some(record) = &self.record {
            arguments.extend(["--record".into(), record.clone().into_os_string()]);
        }
        if let Some(workers_min) = self.workers_min {
            arguments.extend(["--workers-min".into(), workers_min.to_string().into()]);
        }
        if let Some(policy) = &self.policy {
            arguments.extend(["--policy".into(), policy.into()]);
        }
        arguments.extend(self.gateway_extra.iter().map(Into::into));
        Program::start(&programs.gateway, &arguments, &self.logs_dir(), self.logs)
    }

    fn announce(&self, deployment: &Deployment, output: Output) {
        let trust = deployment.trust.display();
        output.show(
            &json!({
                "ready": true,
                "gateway": format!("http://{}", self.listen),
                "key_service": self.keys_listen.to_string(),
                "trust": deployment.trust.display().to_string(),
                "packages": self.dir.join("packages").display().to_string(),
                "storage": deployment.storage.display().to_string(),
                "administrator": deployment.administrator.display().to_string(),
                "simulated": true,
                "measurements": {
                    "keys": deployment.keys,
                    "runtime": deployment.runtime,
                },
            }),
            format_args!(
                "ready\n  gateway      http://{}\n  key service  {}  {}\n  runtime      {} × {}\n  logs         \
                 {}{}\n\nCtrl-C stops everything",
                self.listen,
                self.keys_listen,
                deployment.keys,
                self.workers,
                deployment.runtime,
                self.logs_dir().display(),
                match self.function {
                    Some(_) => String::new(),
                    None => format!(
                        "\n\nnext, in another terminal:\n  bield init --trust {trust}\n  bield verify\n  bield pack \
                         MODEL.onnx --name NAME --version 1 -o MODEL.bield\n  bield push MODEL.bield\n  bield grant \
                         MODEL.bield --user me --code {}\n  bield call NAME --owner me --input INPUTS.json\nor, in a \
                         function's folder:\n  bield init --trust {trust}\n  bield deploy --build",
                        deployment.runtime
                    ),
                },
            ),
        );
    }

    fn logs_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }
}

/// Waits until told to stop, or until a program dies; looks after a function meanwhile.
fn wait_for_the_end(
    running: &mut [Program],
    events: &Events,
    mut development: Option<&mut Development<'_>>,
) -> Result<(), Failure> {
    loop {
        if let Some(development) = &mut development {
            development.look();
        }
        running.iter_mut().try_for_each(Program::check_alive)?;
        if matches!(events.wait(POLL), Event::Stop) {
            return Ok(());
        }
    }
}

/// Binds the address, and puts the port that was given in the place of 0. A sentence now is better than a log line later.
fn free(address: &mut SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(*address).and_then(|listener| {
        address.set_port(listener.local_addr()?.port());
        Ok(listener)
    });
    bound.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {} is in use: stop what uses it, or choose another",
                    address.port()
                )
            }
            _ => format!("cannot listen on {address}: {error}; choose another"),
        };
        Failure::new(Kind::Local, format_args!("{hint} with {flag}"))
    })
}

const POLL: Duration = Duration::from_millis(100);
/// The software TEE makes a machine in under a second.
const TEE_WAIT: Duration = Duration::from_secs(20);

const BANNER: &str = "\
************************************************************************
*  SOFTWARE TEE: NO HARDWARE PROTECTION. For development only.         *
*  Whoever can use this account can read every model and request.      *
************************************************************************";

const EXAMPLES: &str = r#"Examples:
  bield dev
  bield init --trust .bield-dev/trust.toml     # in another terminal

  bield new guestbook && cd guestbook && npm install
  bield dev --function .
  bield call guestbook --path /visit           # in another terminal, there"#;
