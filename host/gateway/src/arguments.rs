//! The command line. Nothing here is trusted or measured: the programs' configurations are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bield_packer::{KeepAlive, Policy, Settings};
use bield_protocol::configuration::KeyServiceConfiguration;
use clap::Parser;

use crate::GatewayError;
use crate::openwhisk::{self, Account};

/// Most members of one key service: more decide slower and no safer.
const MEMBERS_MAX: usize = 16;
/// Most witnesses of one key service.
const WITNESSES_MAX: usize = 16;

/// Threads for starts, status reports and package files.
const OTHER_WAITING_THREADS: usize = 64;

/// Starts the key service and the runtimes, and serves sealed requests over HTTP.
///
/// The gateway is not trusted: it carries sealed bytes and can only delay or refuse. What the enclave
/// programs may do stands in their configuration files, which are measured and shown in their evidence.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bield-gateway",
    version,
    after_help = "Exit codes: 0 stopped when told to (SIGTERM, SIGINT); 1 failed while running; 2 an argument, \
                  port, file or directory must be changed; 3 an enclave program did not start."
)]
pub struct Arguments {
    /// Address of the HTTP endpoint
    #[arg(long, default_value = "127.0.0.1:8790")]
    pub listen: SocketAddr,
    /// Address for attested sessions with the key service this gateway starts
    #[arg(long, default_value = "127.0.0.1:8791")]
    pub keys_listen: SocketAddr,
    /// Key service that the runtimes ask, after this gateway's own if it starts one; repeat for each instance
    #[arg(long = "key-service", value_name = "HOST:PORT")]
    pub key_services: Vec<String>,
    /// Sessions with the key service at once, some of which are kept for own runtimes and for its members
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    pub keys_sessions: u32,
    /// Sessions at once from one address (IPv6: one /56) [default: a sixteenth of the public ones, at least 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub keys_peer_sessions: Option<u32>,
    /// Members of the key service, this one among them: repeat for each, in the order of their slots
    #[arg(long = "member", value_name = "HOST:PORT", requires = "member_slot")]
    pub members: Vec<String>,
    /// Which of the members this gateway starts, counted from 0
    #[arg(long, value_name = "N", requires = "members")]
    pub member_slot: Option<u8>,
    /// Address for sessions of the other members: what they call --member
    #[arg(long, default_value = "127.0.0.1:8792")]
    pub members_listen: SocketAddr,
    /// Witness that the key service asks, in the order of its configuration; repeat for each
    #[arg(long = "witness-address", value_name = "HOST:PORT")]
    pub witness_addresses: Vec<String>,
    /// Key service program [default: bield-keys beside this program]
    #[arg(long, value_name = "FILE")]
    pub keys_program: Option<PathBuf>,
    /// Runtime program [default: bield-runtime beside this program]
    #[arg(long, value_name = "FILE")]
    pub runtime_program: Option<PathBuf>,
    /// libonnxruntime.so, for runtimes whose configuration names it by its digest
    #[arg(long, value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
    /// Measured configuration of the key service (TOML)
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "key_services",
        requires = "storage"
    )]
    pub keys_config: Option<PathBuf>,
    /// Measured configuration of the runtimes (TOML); needed where this gateway starts them
    #[arg(long, value_name = "FILE")]
    pub runtime_config: Option<PathBuf>,
    /// The TEE, handed to the programs as it is: `software:/path.sock` has no hardware protection
    #[arg(long, value_name = "SPEC")]
    pub tee: String,
    /// Directory of sealed packages, one DIGEST.bield each; needed where this gateway starts runtimes
    #[arg(long, value_name = "DIR")]
    pub packages: Option<PathBuf>,
    /// Directory of the key service's sealed log, for this gateway alone
    #[arg(long, value_name = "DIR")]
    pub storage: Option<PathBuf>,
    /// Directory of the sealed state of functions, for this gateway alone; without it, functions that keep state do not run
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How many runtimes to run at most; 0 to run the key service alone
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub workers: u16,
    /// How many to run even when nobody calls; 0 starts the first one for the first call [default: as --workers]
    #[arg(long, value_name = "N")]
    pub workers_min: Option<u16>,
    /// Runtimes that are kept ready, attested but empty, beside those in use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub spares: u16,
    /// How requests find runtimes: bield, fnpacker, one-per-model or all-in-one
    #[arg(long, value_name = "NAME", default_value_t)]
    pub policy: Policy,
    /// How long a runtime beyond --workers-min lives idle, in seconds [default: by what is seen of each package]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub keep_alive_secs: Option<u64>,
    /// Most memory of one runtime in MiB, by a control group where this user may make one; the system ends one that takes
    /// more
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=16_777_216))]
    pub worker_memory_mib: Option<u64>,
    /// Worker that somebody else runs (bield-worker), instead of runtimes of this gateway; repeat for each
    #[arg(long = "worker-address", value_name = "HOST:PORT", conflicts_with_all = ["workers", "workers_min", "spares", "worker_memory_mib", "runtime_config"])]
    pub worker_addresses: Vec<String>,
    /// Requests handed to one runtime at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Requests that may wait, for each of --workers; more get 429
    #[arg(long, default_value_t = 64)]
    pub queue: usize,
    /// Requests of one network that may wait, for each of --workers; more get 429 [default: as --queue]
    #[arg(long, value_name = "N")]
    pub share: Option<usize>,
    /// Longest wait for a runtime in milliseconds, its start included where none runs; then 503
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub queue_ms: u64,
    /// Longest time for one answer in milliseconds, cold start included; then 504
    #[arg(long, value_name = "MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub call_ms: u64,
    /// Longest request body in MiB; more gets 413
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub body_mib: u16,
    /// Memory for all request bodies together in MiB; more gets 503
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub bodies_mib: u32,
    /// Longest package in GiB; more gets 413
    #[arg(long, value_name = "GIB", default_value_t = 66)]
    pub package_gib: u64,
    /// Longest time in seconds to finish what is in flight when told to stop
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub drain_secs: u64,
    /// File with accounts of clients of Apache OpenWhisk, whose paths are served when there is one: NAMESPACE:UUID:KEY a line
    #[arg(long, value_name = "FILE")]
    pub openwhisk_accounts: Option<PathBuf>,
    /// Such an account, which every user of this machine can then read in the list of processes; repeat for each namespace
    #[arg(long = "openwhisk-auth", value_name = "NAMESPACE:UUID:KEY")]
    pub openwhisk_auth: Vec<Account>,
    /// Longest parameters and longest result of an OpenWhisk action in KiB; more gets 413
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub openwhisk_payload_kib: u32,
    /// Longest wait of a blocking invocation in milliseconds; then 202, and its activation is asked for
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub openwhisk_blocking_ms: u64,
    /// Controller of an OpenWhisk platform that runs the workers (bield-worker as its image), instead of runtimes of this
    /// gateway; the way there must be private
    #[arg(long, value_name = "HOST:PORT", requires_all = ["openwhisk_auth_file", "openwhisk_image"], conflicts_with_all = ["worker_addresses", "workers", "workers_min", "spares", "worker_memory_mib", "runtime_config"])]
    pub openwhisk_host: Option<String>,
    /// File with UUID:KEY of the namespace there
    #[arg(long, value_name = "FILE", requires = "openwhisk_host")]
    pub openwhisk_auth_file: Option<PathBuf>,
    /// Image of the workers there, with a tag other than `latest`
    #[arg(long, value_name = "IMAGE", requires = "openwhisk_host")]
    pub openwhisk_image: Option<String>,
    /// First part of the names of its actions there: of no other gateway's in that namespace, since each deletes its own
    #[arg(long, value_name = "NAME", default_value = "bield", value_parser = action_name)]
    pub openwhisk_name: String,
    /// How many actions to make there at most; one of them is one place for packages
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub openwhisk_actions: u16,
    /// Memory of one worker there in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub openwhisk_memory_mib: u32,
    /// Where the private directories of the programs' doors are made [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub run_directory: Option<PathBuf>,
    /// Also write every byte carried to and from the programs to DIR: what an attacker here would see
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Stop when standard input ends, so that a program that starts this one takes it along
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// Log as JSON lines (standard error)
    #[arg(long)]
    pub json_logs: bool,
}

impl Arguments {
    /// Takes in the file of OpenWhisk accounts.
    pub(crate) fn read_accounts(&mut self) -> Result<(), GatewayError> {
        let Some(path) = &self.openwhisk_accounts else {
            return Ok(());
        };
        let text = std::fs::read_to_string(path).map_err(|error| GatewayError::File {
            path: path.clone(),
            error,
        })?;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let account = line.parse().map_err(|why| {
                let path = path.display();
                GatewayError::Arguments(format!(
                    "line {number} of {path} (--openwhisk-accounts): {why}; correct it"
                ))
            })?;
            self.openwhisk_auth.push(account);
        }
        Ok(())
    }

    /// What the command line's grammar cannot say of itself.
    pub(crate) fn check(&self) -> Result<(), GatewayError> {
        let refuse = |why: &str| Err(GatewayError::Arguments(why.to_owned()));
        if self.starts_runtimes() && (self.runtime_config.is_none() || self.packages.is_none()) {
            return refuse(
                "runtimes need --runtime-config and --packages; give both, or --workers 0 for a key service alone",
            );
        }
        if !self.has_workers() && self.keys_config.is_none() {
            return refuse("--workers 0 runs the key service alone and needs --keys-config");
        }
        if self.workers_min.is_some_and(|min| min > self.workers) {
            return refuse("--workers-min must not be more than --workers");
        }
        let starts_all =
            self.policy == Policy::Bield && self.workers_min.is_none_or(|min| min >= self.workers);
        if self.has_workers() && self.queue == 0 && !starts_all {
            return refuse(
                "with --queue 0 no request can wait while a runtime starts; give a queue, or policy bield without --workers-min",
            );
        }
        if self.keys_config.is_none()
            && !(self.members.is_empty() && self.witness_addresses.is_empty())
        {
            return refuse(
                "--member and --witness-address are for the key service this gateway starts; give --keys-config",
            );
        }
        if self.members.len() > MEMBERS_MAX || self.witness_addresses.len() > WITNESSES_MAX {
            return refuse("at most 16 members and 16 witnesses can be named");
        }
        let mut accounts = self.openwhisk_auth.iter();
        while let Some(one) = accounts.next() {
            if accounts.clone().any(|other| one.is_taken_for(other)) {
                return refuse(
                    "two OpenWhisk accounts have the same namespace or the same UUID:KEY; give each its own",
                );
            }
        }
        match self.member_slot {
            Some(slot) if usize::from(slot) >= self.members.len() => refuse(
                "--member-slot counts the --member addresses from 0 and must be less than their number",
            ),
            _ => Ok(()),
        }
    }

    /// Whether the addresses fit what the key service's configuration says of their numbers. One that the
    /// key service will refuse is left to it: it says why.
    pub(crate) fn check_against(&self, configuration: &[u8]) -> Result<(), GatewayError> {
        let Some(configuration) = std::str::from_utf8(configuration)
            .ok()
            .and_then(|text| KeyServiceConfiguration::parse(text).ok())
        else {
            return Ok(());
        };
        let refuse = |why: String| Err(GatewayError::Arguments(why));
        let (keys, witnesses) = (
            configuration.witnesses.keys.len(),
            self.witness_addresses.len(),
        );
        if keys != witnesses {
            return refuse(format!(
                "the key service's configuration names {keys} witnesses ([witnesses] keys) and the command line {witnesses}; give --witness-address once for each of those keys, in their order"
            ));
        }
        let (members, named) = (usize::from(configuration.members), self.members.len());
        if members > 1 && named != members {
            return refuse(format!(
                "the key service's configuration says members = {members} and the command line names {named}; give --member once for each of them, this one among them, and --member-slot for this one's place"
            ));
        }
        if members > 1 && self.member_slot.is_none() {
            return refuse(format!(
                "the key service's configuration says members = {members}; give --member-slot, this one's place among the --member addresses, counted from 0"
            ));
        }
        Ok(())
    }

    /// Whether this gateway starts runtimes itself.
    pub(crate) fn starts_runtimes(&self) -> bool {
        self.workers > 0 && self.worker_addresses.is_empty() && self.openwhisk_host.is_none()
    }

    /// Whether there is anybody to call.
    pub(crate) fn has_workers(&self) -> bool {
        self.workers > 0 || !self.worker_addresses.is_empty() || self.openwhisk_host.is_some()
    }

    /// What the packer is told, for a pool of this many places.
    pub(crate) fn settings(&self, places: u32) -> Settings {
        let usual = Settings::default();
        let each = usize::try_from(places).unwrap_or(usize::MAX);
        let queue_max = self.queue.saturating_mul(each);
        let keep_alive = match self.keep_alive_secs.map(Duration::from_secs) {
            Some(asked) => KeepAlive {
                floor: asked,
                ceiling: asked,
                fixed: asked,
                ..usual.keep_alive
            },
            None => usual.keep_alive,
        };
        Settings {
            policy: self.policy,
            // The other policies start each worker for a request, as published.
            workers_min: match self.policy {
                Policy::Bield => self.workers_min.map_or(places, u32::from),
                _ => 0,
            },
            workers_max: places,
            spares: self.spares.into(),
            concurrency: self.concurrency.into(),
            queue_max,
            share: self
                .share
                .map_or(queue_max, |share| share.saturating_mul(each)),
            interval: usual.interval.min(keep_alive.floor),
            keep_alive,
            fnpacker_pool: places,
            ..usual
        }
    }

    /// Most threads that wait for a program or a file at once: one for each request handed to a runtime, which all wait
    /// together when all are slow, one for each runtime's report, and some for everything else. Each is made when it is needed, takes some 20 KB, and ends
    /// when it has had nothing to do for 10 s; 65 792 of them, the most, take 1.3 GB.
    #[must_use]
    pub fn waiting_threads_max(&self) -> usize {
        usize::from(self.workers) * (usize::from(self.concurrency) + 1) + OTHER_WAITING_THREADS
    }

    /// Whether this gateway's key service is one of several members.
    pub(crate) fn is_member(&self) -> bool {
        self.member_slot.is_some()
    }

    /// What OpenWhisk's actions keep to.
    pub(crate) fn openwhisk_limits(&self) -> openwhisk::Limits {
        openwhisk::Limits {
            payload_bytes_max: usize::try_from(self.openwhisk_payload_kib)
                .unwrap_or(usize::MAX)
                .saturating_mul(1024),
            blocking_max: Duration::from_millis(self.openwhisk_blocking_ms),
            timeout_max: Duration::from_millis(self.queue_ms.saturating_add(self.call_ms)),
            concurrency_max: self.concurrency.into(),
        }
    }

    /// Longest request body in bytes.
    pub(crate) fn body_bytes_max(&self) -> usize {
        usize::from(self.body_mib) << 20
    }
}

/// What can stand in a path of OpenWhisk's, and be a name there with a number behind it.
fn action_name(name: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= 64
        && name.bytes().all(is_plain)
    {
        true => Ok(name.to_owned()),
        false => {
            Err("it is up to 64 letters, digits, - and _, the first a letter or a digit".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_from_a_file_and_no_two_are_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("accounts");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let line = "bield-gateway --tee x --key-service a:1 --workers 0 --keys-config k --storage s --openwhisk-auth lab:u:k";
            let mut arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            arguments.openwhisk_accounts = Some(file.clone());
            arguments.read_accounts()?;
            arguments.check()?;
            Ok::<_, GatewayError>(format!("{:?}", arguments.openwhisk_auth))
        };
        let both = read("# whom\n\nguest:v:l\n").unwrap();
        assert_eq!(both, "[Account(lab), Account(guest)]");
        for (text, why) in [
            ("guest:v:l\nguest\n", "line 2"),
            ("lab:v:l", "the same namespace"),
            ("guest:u:k", "the same UUID:KEY"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
            assert!(!said.contains(":l"), "{said}");
        }
    }

    #[test]
    fn a_queue_of_none_goes_with_workers_that_are_there_alone() {
        let check = |more: &str| {
            let line = format!(
                "bield-gateway --tee x --key-service a:1 --queue 0 --worker-address a:1 {more}"
            );
            let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
            arguments.check()
        };
        check("").unwrap();
        check("--policy fnpacker").unwrap_err();
    }

    #[test]
    fn every_place_at_a_runtime_has_a_thread_that_may_wait() {
        for (workers, concurrency) in [(0, 1), (1, 4), (3, 256), (256, 256)] {
            let line = format!(
                "bield-gateway --tee x --key-service a:1 --workers {workers} --concurrency {concurrency}"
            );
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.waiting_threads_max() > workers * concurrency);
        }
    }
}
