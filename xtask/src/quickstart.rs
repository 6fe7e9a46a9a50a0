//! `cargo quickstart`: the whole story on one screen, typed as a user would type it.
//!
//! Every line that starts with `$` is a command of the built programs; what follows is what they
//! print. Nothing here knows a key or verifies anything: the programs do.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::MetadataCommand;

use crate::programs::{Engines, build, root, target_directory};

/// Tells the story, asking about `file`.
pub(crate) fn run(file: &Path) -> Result<()> {
    let file = fs::canonicalize(file)
        .with_context(|| format!("{} is not a file that can be asked about", file.display()))?;
    println!("bield quickstart: a sealed model on a machine nobody has to trust.");
    println!("It uses the software TEE: everything is real but the hardware protection.\n");
    println!("Building the programs (a few minutes the first time) …");
    let programs = build(true, Engines::Usual)?;
    let model = Model::find()?;

    let place = target_directory()?.join("quickstart");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("clearing {}", place.display()))?;
    }
    fs::create_dir_all(&place)?;
    let story = Story {
        programs,
        place,
        model,
        file,
    };

    let stack = story.operator_starts()?;
    let (package, owner) = story.owner_seals()?;
    let code = story.owner_grants(&package)?;
    story.user_asks()?;
    story.refusals(&stack, &package, &owner, &code)?;

    println!("\nDone. What was written is in {}.", story.place.display());
    println!(
        "Next: `cargo xtask test`, README.md (\"Try it by hand\"), SECURITY.md (what this does not cover)."
    );
    Ok(())
}

/// The demo's model, magika, as cargo has it.
pub(crate) fn model() -> Result<PathBuf> {
    Ok(Model::find()?.onnx)
}

/// Everything the steps share.
struct Story {
    programs: PathBuf,
    place: PathBuf,
    model: Model,
    file: PathBuf,
}

/// A running gateway, alone or inside a development stack.
struct Stack {
    child: Stopped,
    listen: SocketAddr,
    keys: SocketAddr,
}

impl Story {
    fn operator_starts(&self) -> Result<Stack> {
        chapter("1", "The operator starts a stack on loopback");
        let (listen, keys) = (free_port()?, free_port()?);
        let mut command = self.program("bield");
        command.args(["dev", "--dir", "dev", "--until-stdin-ends"]);
        command.arg("--listen").arg(listen.to_string());
        command.arg("--keys-listen").arg(keys.to_string());
        let child = Stopped(start(&mut command)?);
        Ok(Stack {
            child,
            listen,
            keys,
        })
    }

    fn owner_seals(&self) -> Result<(String, String)> {
        chapter(
            "2",
            "The model owner seals a real model and hands the host ciphertext",
        );
        let owner = self.initialised("owner")?;
        let model = self.model.onnx.display().to_string();
        let golden = root()
            .join("examples/file-type/golden.json")
            .display()
            .to_string();
        self.say(
            "bield",
            &[
                "--home",
                "owner",
                "pack",
                &model,
                "--name",
                "magika",
                "--version",
                "1.1.0",
                "--golden",
                &golden,
                "--output",
                "magika.bield",
            ],
        )?;
        self.say("bield", &["--home", "owner", "push", "magika.bield"])?;
        let summary = self.json(&[
            "--home",
            "owner",
            "--json",
            "verify",
            "--package",
            "magika.bield",
        ])?;
        let digest = text(&summary, "package")?;
        Ok((digest, owner))
    }

    fn owner_grants(&self, package: &str) -> Result<String> {
        chapter(
            "3",
            "A user introduces herself; the owner grants her the model, in one code only",
        );
        let user = self.initialised("user")?;
        let code = self.trusted_code()?;
        self.say(
            "bield",
            &[
                "--home",
                "owner",
                "grant",
                "magika.bield",
                "--user",
                &user,
                "--code",
                &code,
                "--expires",
                "1d",
            ],
        )?;
        ensure!(!package.is_empty(), "the package has no digest");
        Ok(code)
    }

    fn user_asks(&self) -> Result<()> {
        chapter("4", "The user asks: what kind of file is this?");
        println!("   First: is that the key service it claims to be?");
        self.say("bield", &["--home", "user", "verify"])?;
        println!(
            "   Her file leaves her process sealed; the answer comes back sealed, with a receipt."
        );
        self.ask("user", "receipt.cbor")?;
        self.say("bield", &["--home", "user", "receipt", "receipt.cbor"])
    }

    fn refusals(&self, stack: &Stack, package: &str, owner: &str, code: &str) -> Result<()> {
        chapter("5", "Three refusals");

        println!("\n a. A user without a grant:");
        self.initialised("stranger")?;
        self.owner_of("stranger", owner)?;
        self.refused("stranger")?;

        println!(
            "\n b. The operator starts a runtime that is not the granted one (one setting differs, so its"
        );
        println!("    measurement differs), and sends the granted user's request to it:");
        let (other, tee) = self.other_gateway(stack)?;
        self.home_at_gateway("user-elsewhere", other.listen)?;
        self.refused("user-elsewhere")?;
        drop((other, tee));

        println!("\n c. The host changes one byte of the stored package and restarts the runtime:");
        let stored = find_file(&self.place.join("dev"), &format!("{package}.bield"))?;
        flip_last_byte(&stored)?;
        restart_runtime(stack)?;
        self.refused("user")?;
        println!("\n    The granted code was {code}.");
        Ok(())
    }

    /// Makes an identity and returns its principal.
    fn initialised(&self, home: &str) -> Result<String> {
        self.say(
            "bield",
            &["--home", home, "init", "--trust", "dev/trust.toml"],
        )?;
        let principal = text(&self.json(&["--home", home, "--json", "id"])?, "principal")?;
        if home != "owner" {
            let owner = text(
                &self.json(&["--home", "owner", "--json", "id"])?,
                "principal",
            )?;
            self.owner_of(home, &owner)?;
        }
        Ok(principal)
    }

    /// Notes in a home's trust file whose packages names refer to.
    fn owner_of(&self, home: &str, owner: &str) -> Result<()> {
        self.edit_trust(home, |trust| {
            let kept = trust.lines().filter(|line| !line.starts_with("owner ="));
            format!(
                "owner = \"{owner}\"\n{}\n",
                kept.collect::<Vec<_>>().join("\n")
            )
        })
    }

    /// A copy of the user's home whose gateway is another one.
    fn home_at_gateway(&self, home: &str, gateway: SocketAddr) -> Result<()> {
        let (from, to) = (self.place.join("user"), self.place.join(home));
        fs::create_dir_all(&to)?;
        for name in ["identity.key", "trust.toml"] {
            fs::copy(from.join(name), to.join(name))?;
        }
        self.edit_trust(home, |trust| {
            let lines = trust.lines().map(|line| match line.starts_with("gateway") {
                true => format!("gateway = \"http://{gateway}\""),
                false => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n") + "\n"
        })
    }

    fn edit_trust(&self, home: &str, edit: impl FnOnce(&str) -> String) -> Result<()> {
        let path = self.place.join(home).join("trust.toml");
        let trust =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(fs::write(&path, edit(&trust))?)
    }

    /// Starts a second gateway whose runtime has another measured configuration.
    fn other_gateway(&self, stack: &Stack) -> Result<(Stack, Stopped)> {
        let dev = self.place.join("dev");
        let configuration = fs::read_to_string(find_file(&dev, "runtime.toml")?)?;
        fs::write(
            self.place.join("other.toml"),
            format!("queue_max = 63\n{configuration}"),
        )?;
        // The same made-up machine, through a second quoting service whose socket has a short name.
        let name = format!("bield-quickstart-{}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let mut tee = self.program("bield-software-tee");
        tee.args(["--state", "dev/tee", "--socket"]).arg(&socket);
        let tee = Stopped(quiet(&mut tee)?);

        let listen = free_port()?;
        let mut command = self.program("bield-gateway");
        command.args([
            "--runtime-config",
            "other.toml",
            "--packages",
            "dev/packages",
        ]);
        command.arg("--listen").arg(listen.to_string());
        command.arg("--key-service").arg(stack.keys.to_string());
        command
            .arg("--tee")
            .arg(format!("software:{}", socket.display()));
        show("bield-gateway", &arguments_of(&command));
        let child = Stopped(quiet(&mut command)?);
        wait_for(listen)?;
        Ok((
            Stack {
                child,
                listen,
                keys: stack.keys,
            },
            tee,
        ))
    }

    fn trusted_code(&self) -> Result<String> {
        let trust = fs::read_to_string(self.place.join("user/trust.toml"))?;
        let line = trust
            .lines()
            .find(|line| line.starts_with("code"))
            .context("no code in the trust file")?;
        line.split('"')
            .nth(1)
            .map(str::to_owned)
            .context("no code in the trust file")
    }

    fn ask(&self, home: &str, receipt: &str) -> Result<()> {
        let (file, labels) = (
            self.file.display().to_string(),
            self.model.labels.display().to_string(),
        );
        self.say(
            "file-type",
            &[
                "--home",
                home,
                "--labels",
                &labels,
                "--receipt",
                receipt,
                &file,
            ],
        )
    }

    /// Asks and insists on being refused.
    fn refused(&self, home: &str) -> Result<()> {
        let (file, labels) = (
            self.file.display().to_string(),
            self.model.labels.display().to_string(),
        );
        let arguments = ["--home", home, "--labels", &labels, &file];
        show("file-type", &arguments);
        let done = self
            .program("file-type")
            .args(arguments)
            .output()
            .context("starting file-type")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(
            !done.status.success(),
            "this call had to be refused, but it was answered"
        );
        indent(said.trim_end());
        Ok(())
    }

    /// Shows a command and what it prints; fails when it does.
    fn say(&self, program: &str, arguments: &[&str]) -> Result<()> {
        show(program, arguments);
        let done = self.program(program).args(arguments).output();
        let done = done.with_context(|| format!("starting {program}"))?;
        let said = [done.stdout, done.stderr].concat();
        indent(String::from_utf8_lossy(&said).trim_end());
        ensure!(
            done.status.success(),
            "{program} ended with {}",
            done.status
        );
        Ok(())
    }

    /// Runs `bield` for its JSON, without showing it.
    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let done = self
            .program("bield")
            .args(arguments)
            .output()
            .context("starting bield")?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(
            done.status.success(),
            "bield {}: {said}",
            arguments.join(" ")
        );
        serde_json::from_slice(&done.stdout).context("bield printed no JSON")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(&self.place);
        command
    }
}

/// The model and its labels, inside the source of the package that ships them.
struct Model {
    onnx: PathBuf,
    labels: PathBuf,
}

impl Model {
    fn find() -> Result<Self> {
        let manifest = root().join("examples/file-type/model/Cargo.toml");
        let mut metadata = MetadataCommand::new();
        metadata
            .manifest_path(&manifest)
            .other_options(["--locked".to_owned()]);
        let metadata = metadata
            .exec()
            .context("finding the package that ships the demo model")?;
        let package = metadata
            .packages
            .iter()
            .find(|package| package.name.as_str() == "magika");
        let package = package.context("the package magika is not among the dependencies")?;
        let source = package
            .manifest_path
            .with_file_name("src")
            .into_std_path_buf();
        let model = Self {
            onnx: source.join("model.onnx"),
            labels: source,
        };
        ensure!(
            model.onnx.is_file(),
            "magika {} has no src/model.onnx",
            package.version
        );
        Ok(model)
    }
}

/// A process that is stopped when this is dropped.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // Ask first, so that it stops its own children; insist after a while.
        let asked = Command::new("kill")
            .arg("-INT")
            .arg(self.0.id().to_string())
            .status();
        let deadline = Instant::now() + STOP_WAIT;
        while asked.is_ok() && Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a stack, prints what it says, and returns when it says that it is ready.
fn start(command: &mut Command) -> Result<Child> {
    show("bield", &arguments_of(command));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("starting the stack")?;
    let (send, receive) = mpsc::channel::<String>();
    let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as _),
        child.stderr.take().map(|out| Box::new(out) as _),
    ];
    for output in outputs.into_iter().flatten() {
        let send = send.clone();
        std::thread::spawn(move || {
            // Reads to the end even when nobody listens any more: a full pipe would stop the stack.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                drop(send.send(line));
            }
        });
    }
    drop(send);
    let deadline = Instant::now() + READY_WAIT;
    while let Ok(line) = receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        indent(&line);
        if line == "ready" {
            // What follows on its heels belongs to the same message.
            while let Ok(line) = receive.recv_timeout(Duration::from_millis(300)) {
                indent(&line);
            }
            return Ok(child);
        }
    }
    drop(child.kill());
    bail!(
        "the stack did not become ready within {} s",
        READY_WAIT.as_secs()
    )
}

fn quiet(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("starting {command:?}"))
}

fn arguments_of(command: &Command) -> Vec<String> {
    command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect()
}

/// Waits until something listens and its workers are ready.
fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_WAIT;
    while Instant::now() < deadline {
        if let Ok(mut stream) = std::net::TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let request =
                format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            if stream.write_all(request.as_bytes()).is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!(
        "nothing became ready at {address} within {} s",
        READY_WAIT.as_secs()
    )
}

/// Ends the runtime process as a crash would; its gateway starts another.
fn restart_runtime(stack: &Stack) -> Result<()> {
    let runtimes = descendants(stack.child.0.id(), "bield-runtime");
    ensure!(!runtimes.is_empty(), "no runtime is running");
    for process in runtimes {
        ensure!(
            Command::new("kill")
                .arg("-KILL")
                .arg(process.to_string())
                .status()?
                .success(),
            "the runtime could not be stopped"
        );
    }
    // Until the gateway notices, it may still say ready.
    std::thread::sleep(Duration::from_millis(500));
    wait_for(stack.listen)
}

/// Processes below `ancestor` whose name begins with `name`.
fn descendants(ancestor: u32, name: &str) -> Vec<u32> {
    let processes: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (called, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            Some((
                id,
                rest.split_whitespace().nth(1)?.parse().ok()?,
                called.to_owned(),
            ))
        })
        .collect();
    let mut below = vec![ancestor];
    let mut at = 0;
    while let Some(parent) = below.get(at).copied() {
        below.extend(
            processes
                .iter()
                .filter(|process| process.1 == parent)
                .map(|process| process.0),
        );
        at += 1;
    }
    let named = processes
        .iter()
        .filter(|process| process.2.starts_with(name));
    named
        .map(|process| process.0)
        .filter(|id| below.contains(id))
        .collect()
}

/// A file somewhere below `folder` whose name ends with `end`.
fn find_file(folder: &Path, end: &str) -> Result<PathBuf> {
    walk(folder)
        .into_iter()
        .find(|path| path.is_file() && path.to_string_lossy().ends_with(end))
        .with_context(|| format!("no {end} below {}", folder.display()))
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn flip_last_byte(path: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::End(-1))?;
    Ok(file.write_all(&[byte[0] ^ 1])?)
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .context("finding a free port")?
        .local_addr()?)
}

fn text(value: &serde_json::Value, field: &str) -> Result<String> {
    let found = value.get(field).and_then(serde_json::Value::as_str);
    found
        .map(str::to_owned)
        .with_context(|| format!("no `{field}` in {value}"))
}

fn chapter(number: &str, title: &str) {
    println!("\n{number}. {title}");
}

fn show(program: &str, arguments: &[impl AsRef<str>]) {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    println!("   $ {program} {}", arguments.join(" "));
}

fn indent(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}

/// How long a stack may take to become ready on a slow machine.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a program may take to stop in good order.
const STOP_WAIT: Duration = Duration::from_secs(10);
