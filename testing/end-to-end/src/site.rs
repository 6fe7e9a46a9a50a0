//! Key services without runtimes: several machines, directories that a test may copy, cut and put back, witnesses.
//!
//! ```text
//!                      ┌ port (taps) ─▶ instance over storage/a on machine 0 ─┐ pipes ┌─▶ witness 0
//!  people ─ bield-sdk ─┤                instance over storage/b on machine 1 ─┼───────┼─▶ witness 1
//!                      └ …              …                                     ┘ (taps)└─▶ …
//! ```
//!
//! Always true: all machines' roots are accepted everywhere, so that only their states differ; people's address of the
//! key service never changes, whichever instance a test leads it to; each start has a log of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use bield_envelope::Principal;
use bield_evidence::Measurement;
use bield_protocol::configuration::{
    KeyServiceConfiguration, RecoveryConfiguration, WitnessesConfiguration,
};
use bield_sdk::{Addresses, TrustConfig};
use tempfile::TempDir;

use crate::instance::Instance;
use crate::stack::{
    START_WAIT, dev, key_service_configuration, measure, named, platform, start_tee,
};
use crate::{Gateway, Person, Process, Tap, gather};

/// What a site consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Machines, each a software TEE with secrets of its own.
    pub machines: usize,
    /// Members of the key service: 1, 3 or 5.
    pub members: u8,
    /// Witnesses that are configured, and how many must cosign.
    pub witnesses: (usize, u8),
    /// Who may hold recovery shares: the persons `holder-0` and so on; and how few shares may be enough.
    pub holders: (usize, u8),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            machines: 1,
            members: 1,
            witnesses: (0, 0),
            holders: (0, 0),
        }
    }
}

/// Machines, witnesses and people, with nothing running over any storage yet.
pub struct Site {
    /// What runs as the key service.
    pub keys_code: Measurement,
    /// Who orders what concerns the service as a whole.
    pub administrator: Principal,
    /// The witnesses, in the order of the configuration.
    pub witnesses: Vec<Witness>,
    plan: Plan,
    ports: Vec<Port>,
    /// `links[from][to]`: how members reach each other.
    links: Vec<Vec<Tap>>,
    members: Vec<std::net::SocketAddr>,
    roots: Vec<String>,
    starts: AtomicUsize,
    others: AtomicUsize,
    _machines: Vec<Process>,
    host: TempDir,
    people: TempDir,
    programs: TempDir,
}

/// Where people reach a member, wherever it listens now.
struct Port {
    keys: Tap,
    http: Tap,
}

/// A running witness.
pub struct Witness {
    /// The process.
    pub process: Process,
    /// Its verifier key.
    pub verifier: String,
    /// Its directory.
    pub data: PathBuf,
    tap: Tap,
}

impl Site {
    /// Starts machines and witnesses and writes the configuration; `configure` has the last word on it.
    ///
    /// # Errors
    /// A program is missing or does not start.
    pub fn new(
        plan: Plan,
        configure: impl FnOnce(&mut KeyServiceConfiguration),
    ) -> anyhow::Result<Self> {
        let (host, people, programs) = (TempDir::new()?, TempDir::new()?, TempDir::new()?);
        let names = [
            "bield-software-tee",
            "bield-gateway",
            "bield-keys",
            "bield-witness",
        ];
        gather(&names, programs.path())?;
        for directory in ["logs", "storage", "taps", "witnesses", "record"] {
            fs::create_dir(host.path().join(directory))?;
        }
        let (mut roots, mut machines) = (Vec::new(), Vec::new());
        for machine in 0..plan.machines {
            let name = format!("machine-{machine}");
            let (root, process) = start_tee(programs.path(), host.path(), &name)?;
            roots.push(root);
            machines.push(process);
        }
        let witnesses = (0..plan.witnesses.0)
            .map(|number| Witness::start(host.path(), programs.path(), number))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let known: Vec<_> = roots.iter().map(String::as_str).collect();
        let administrator = named(people.path(), "administrator")?;
        let holders = (0..plan.holders.0).map(|holder| {
            let holder = named(people.path(), &format!("holder-{holder}"))?;
            anyhow::Ok(holder.to_string())
        });
        let holders = holders.collect::<Result<Vec<_>, _>>()?;
        let mut config = key_service_configuration(&known);
        config.members = plan.members;
        config.peers = (plan.members > 1).then(|| dev(&known, None));
        let members = usize::from(plan.members);
        if (2..=plan.machines).contains(&members) {
            let platforms = (0..members)
                .map(|slot| platform(programs.path(), host.path(), &format!("machine-{slot}")));
            config.member_platforms = platforms.collect::<anyhow::Result<_>>()?;
        }
        config.administrators = vec![administrator.to_string()];
        config.witnesses = WitnessesConfiguration {
            keys: witnesses.iter().map(|one| one.verifier.clone()).collect(),
            needed: plan.witnesses.1,
        };
        config.recovery = (!holders.is_empty()).then_some(RecoveryConfiguration {
            holders,
            threshold_min: plan.holders.1,
        });
        configure(&mut config);
        let config = toml::to_string(&config)?;
        let keys_code = measure(&programs.path().join("bield-keys"), &config)?;
        fs::write(host.path().join("keys.toml"), config)?;

        let taps = host.path().join("taps");
        let slots = 0..usize::from(plan.members);
        let ports = slots.clone().map(|slot| {
            Ok(Port {
                keys: Tap::open(&taps, &format!("keys-{slot}"))?,
                http: Tap::open(&taps, &format!("http-{slot}"))?,
            })
        });
        let ports = ports.collect::<anyhow::Result<Vec<_>>>()?;
        let members = slots.clone().map(|_| free_address());
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        let mut links = Vec::new();
        for from in slots.clone() {
            let mut row = Vec::new();
            for to in slots.clone() {
                let tap = Tap::open(&taps, &format!("member-{from}-to-{to}"))?;
                tap.lead_to(members[to]);
                row.push(tap);
            }
            links.push(row);
        }
        Ok(Self {
            keys_code,
            administrator,
            witnesses,
            plan,
            ports,
            links,
            members,
            roots,
            starts: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            _machines: machines,
            host,
            people,
            programs,
        })
    }

    /// Everything a host sees.
    pub fn host(&self) -> &Path {
        self.host.path()
    }

    /// Where the programs are.
    pub fn programs(&self) -> &Path {
        self.programs.path()
    }

    /// The storage directory `name`.
    pub fn storage(&self, name: &str) -> PathBuf {
        self.host().join("storage").join(name)
    }

    /// Puts a copy of the storage `from` in the place of `to`.
    ///
    /// # Errors
    /// Files cannot be read or written.
    pub fn copy(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let (from, to) = (self.storage(from), self.storage(to));
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let path = entry?.path();
            let name = path.file_name().context("a file in a directory")?;
            fs::copy(&path, to.join(name))?;
        }
        Ok(())
    }

    /// Starts a key service of one instance over `storage` on machine 0 and leads people to it.
    ///
    /// # Errors
    /// It does not start; quotes what it said.
    pub fn start(&self, storage: &str) -> anyhow::Result<Instance> {
        let instance = self.start_on(0, storage)?;
        self.lead_to(&instance)?;
        Ok(instance)
    }

    /// As [`start`](Self::start), on any machine; nobody is led to it.
    ///
    /// # Errors
    /// It does not start; quotes what it said.
    pub fn start_on(&self, machine: usize, storage: &str) -> anyhow::Result<Instance> {
        self.start_of(&self.host().join("keys.toml"), machine, storage)
    }

    /// As [`start_on`](Self::start_on), with another configuration, hence of another measurement.
    ///
    /// # Errors
    /// It does not start; quotes what it said.
    pub fn start_of(
        &self,
        config: &Path,
        machine: usize,
        storage: &str,
    ) -> anyhow::Result<Instance> {
        let mut command = self.command(machine, storage, config);
        command.args(["--listen", "127.0.0.1:0", "--keys-listen", "127.0.0.1:0"]);
        let log = self.log(storage);
        let gateway = Gateway::start(&mut command, &log)?;
        let keys = gateway.keys.as_deref().context("it has a key service")?;
        Ok(Instance {
            keys: keys.parse()?,
            url: gateway.url,
            process: gateway.process,
            storage: self.storage(storage),
        })
    }

    /// Leads people to `instance` from now on.
    ///
    /// # Errors
    /// Never, for an instance that was started.
    pub fn lead_to(&self, instance: &Instance) -> anyhow::Result<()> {
        self.ports[0].keys.lead_to(instance.keys);
        self.ports[0].http.lead_to(instance.http()?);
        Ok(())
    }

    /// Starts the member of this slot over `storage`, without waiting until the group has formed, and leads people to
    /// it.
    ///
    /// # Errors
    /// Its program is missing.
    pub fn start_member(&self, slot: usize, storage: &str) -> anyhow::Result<Instance> {
        self.start_member_of(&self.host().join("keys.toml"), slot, storage)
    }

    /// As [`start_member`](Self::start_member), with another configuration, hence of another measurement.
    ///
    /// # Errors
    /// Its program is missing.
    pub fn start_member_of(
        &self,
        config: &Path,
        slot: usize,
        storage: &str,
    ) -> anyhow::Result<Instance> {
        let (keys, http) = (free_address()?, free_address()?);
        let mut command = self.command(slot % self.plan.machines, storage, config);
        command.args(["--listen", &http.to_string()]);
        command.args(["--keys-listen", &keys.to_string()]);
        command.args(["--members-listen", &self.members[slot].to_string()]);
        command.args(["--member-slot", &slot.to_string()]);
        for tap in &self.links[slot] {
            command.args(["--member", &tap.address().to_string()]);
        }
        let process = Process::start(&mut command, &self.log(storage))?;
        let instance = Instance {
            process,
            storage: self.storage(storage),
            url: format!("http://{http}"),
            keys,
        };
        self.ports[slot].keys.lead_to(keys);
        self.ports[slot].http.lead_to(http);
        Ok(instance)
    }

    /// Writes a configuration that differs from this site's. Returns its file, another one each time.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_other(
        &self,
        configure: impl FnOnce(&mut KeyServiceConfiguration),
    ) -> anyhow::Result<PathBuf> {
        let own = fs::read_to_string(self.host().join("keys.toml"))?;
        let mut config = KeyServiceConfiguration::parse(&own)?;
        configure(&mut config);
        let number = self.others.fetch_add(1, Ordering::SeqCst);
        let file = self.host().join(format!("keys-other-{number}.toml"));
        fs::write(&file, toml::to_string(&config)?)?;
        Ok(file)
    }

    /// What runs as the key service with this configuration.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn code_of(&self, config: &Path) -> anyhow::Result<Measurement> {
        let config = fs::read_to_string(config)?;
        measure(&self.programs().join("bield-keys"), &config)
    }

    /// Cuts a member off from the others, or lets it reach them and be reached again. People reach it all the time.
    pub fn cut_off(&self, slot: usize, cut: bool) {
        for other in (0..self.links.len()).filter(|other| *other != slot) {
            let between = [(slot, other), (other, slot)];
            for (from, to) in between {
                match cut {
                    true => self.links[from][to].cut(),
                    false => self.links[from][to].lead_to(self.members[to]),
                }
            }
        }
    }

    /// A person who trusts this key service, whichever instance serves.
    ///
    /// # Errors
    /// The home cannot be made.
    pub fn person(&self, name: &str) -> anyhow::Result<Person> {
        let trust = toml::to_string(&self.trust())?;
        Person::settle(self.people.path().join(name), &trust)
    }

    /// A person who reaches only the member of this slot.
    ///
    /// # Errors
    /// The home cannot be made.
    pub fn person_at(&self, name: &str, slot: usize) -> anyhow::Result<Person> {
        let trust = TrustConfig {
            key_service: self.ports[slot].keys.address().to_string().into(),
            ..self.trust()
        };
        Person::settle(self.people.path().join(name), &toml::to_string(&trust)?)
    }

    /// Has a person trust these codes of the key service and no other, at the same addresses.
    ///
    /// # Errors
    /// The home cannot be written.
    pub fn retrust(person: &mut Person, codes: &[&Measurement]) -> anyhow::Result<()> {
        let text = fs::read_to_string(person.home.path().join("trust.toml"))?;
        let mut trust: TrustConfig = toml::from_str(&text)?;
        trust.service.measurements = codes.iter().map(ToString::to_string).collect();
        person.trust = person.home.replace_trust(&toml::to_string(&trust)?)?;
        Ok(())
    }

    /// The trust file of people who use this key service.
    pub fn trust(&self) -> TrustConfig {
        let addresses = self
            .ports
            .iter()
            .map(|port| port.keys.address().to_string());
        let mut addresses: Vec<_> = addresses.collect();
        let key_service = match addresses.len() {
            1 => Addresses::One(addresses.remove(0)),
            _ => Addresses::Several(addresses),
        };
        let roots: Vec<_> = self.roots.iter().map(String::as_str).collect();
        TrustConfig {
            gateway: format!("http://{}", self.ports[0].http.address()),
            key_service,
            // No runtime is here; grants name some code all the same.
            code: vec![self.keys_code.clone()],
            signers: Vec::new(),
            runtimes: None,
            witnesses: None,
            owner: None,
            principal: None,
            service: dev(&roots, Some(&self.keys_code)),
        }
    }

    fn command(&self, machine: usize, storage: &str, config: &Path) -> Command {
        let mut command = Command::new(self.programs().join("bield-gateway"));
        command.env("RUST_LOG", "trace");
        command.args(["--workers", "0", "--drain-secs", "2"]);
        let socket = self.host().join(format!("machine-{machine}.sock"));
        command.args(["--tee", &format!("software:{}", socket.display())]);
        command.arg("--keys-config").arg(config);
        command.arg("--storage").arg(self.storage(storage));
        for witness in &self.witnesses {
            let address = witness.tap.address().to_string();
            command.args(["--witness-address", &address]);
        }
        command
    }

    fn log(&self, storage: &str) -> PathBuf {
        let start = self.starts.fetch_add(1, Ordering::SeqCst);
        self.host()
            .join(format!("logs/{storage}-start-{start}.log"))
    }
}

impl Witness {
    fn start(host: &Path, programs: &Path, number: usize) -> anyhow::Result<Self> {
        let data = host.join(format!("witnesses/{number}"));
        let name = format!("witness-{number}.example");
        let mut command = Command::new(programs.join("bield-witness"));
        command.args(["--listen", "127.0.0.1:0", "--any-keys", "--name", &name]);
        command.arg("--data").arg(&data);
        let log = host.join(format!("logs/witness-{number}.log"));
        let mut process = Process::start(&mut command, &log)?;
        let said = process.says("listening ", START_WAIT)?;
        let (url, verifier) = said.split_once(' ').context("an address and a key")?;
        let tap = Tap::open(&host.join("taps"), &format!("witness-{number}"))?;
        tap.lead_to(url.trim_start_matches("http://").parse()?);
        ensure!(verifier.starts_with(&name), "{verifier}");
        Ok(Self {
            process,
            verifier: verifier.to_owned(),
            data,
            tap,
        })
    }

    /// Nobody reaches it any more.
    pub fn cut(&self) {
        self.tap.cut();
    }
}

/// An address that was free a moment ago, out of the range from which the system gives ports to whoever connects, and
/// out of a part of it that other tests of the same time do not use.
fn free_address() -> anyhow::Result<std::net::SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let part = u16::try_from(std::process::id() % PARTS)?;
    for _ in 0..PORTS {
        let port = FIRST_PORT + part * PORTS + NEXT.fetch_add(1, Ordering::SeqCst) % PORTS;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    anyhow::bail!("no port is free")
}

const FIRST_PORT: u16 = 16_384;
const PARTS: u32 = 100;
/// Of each part: a test with three members starts some twenty times.
const PORTS: u16 = 160;
const _: () = assert!(FIRST_PORT as u32 + PARTS * PORTS as u32 <= 32_768);
