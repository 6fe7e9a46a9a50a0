//! `cargo quickstart`: the whole story on one screen, typed as a user would type it.
//!
//! Every line that starts with `$` is a command of the built programs; what follows is what they
//! print. Nothing here knows a key or verifies anything: the programs do.

mod files;
mod function;
mod processes;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::MetadataCommand;

use crate::programs::{Engines, build, root, target_directory};
use files::{find_file, flip_last_byte};
use function::Counter;
use processes::{
    Stopped, arguments_of, free_port, quiet, restart, restart_runtime, start, wait_for,
};

/// Tells the story, asking about `file`.
pub(crate) fn run(file: &Path) -> Result<()> {
    let file = fs::canonicalize(file)
        .with_context(|| format!("{} is not a file that can be asked about", file.display()))?;
    println!(
        "bield quickstart: a sealed model and a function with sealed state, on a machine nobody has to trust."
    );
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
    let counter = story.function_counts(&code)?;
    story.refusals(stack, &package, &owner, &code, &counter)?;

    println!("\nDone. What was written is in {}.", story.place.display());
    println!(
        "Next: `cargo xtask test`, README.md (\"Try it by hand\"), docs/functions.md, SECURITY.md (what this does not cover)."
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
        self.stack_at(free_port()?, free_port()?, start)
    }

    fn stack_at(
        &self,
        listen: SocketAddr,
        keys: SocketAddr,
        start: impl FnOnce(&mut Command) -> Result<Child>,
    ) -> Result<Stack> {
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

    fn refusals(
        &self,
        stack: Stack,
        package: &str,
        owner: &str,
        code: &str,
        counter: &Counter,
    ) -> Result<()> {
        chapter("6", "Four refusals");

        println!("\n a. A user without a grant:");
        self.initialised("stranger")?;
        self.owner_of("stranger", owner)?;
        self.refused("stranger")?;

        println!(
            "\n b. The operator starts a runtime that is not the granted one (one setting differs, so its"
        );
        println!("    measurement differs), and sends the granted user's request to it:");
        let (other, tee) = self.other_gateway(&stack)?;
        self.home_at_gateway("user-elsewhere", other.listen)?;
        self.refused("user-elsewhere")?;
        drop((other, tee));

        println!(
            "\n c. The host stops its stack, puts the function's files of before the second count back, and starts it:"
        );
        let (listen, keys) = (stack.listen, stack.keys);
        drop(stack);
        counter.rolls_back()?;
        let stack = self.stack_at(listen, keys, restart)?;
        wait_for(listen)?;
        self.insists("bield", &counter.asks())?;

        println!("\n d. The host changes one byte of the stored package and kills the runtime:");
        let stored = find_file(&self.place.join("dev"), &format!("{package}.bield"))?;
        flip_last_byte(&stored)?;
        restart_runtime(&stack)?;
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
        self.insists("file-type", &["--home", home, "--labels", &labels, &file])
    }

    /// Shows a command that has to be refused, and why it is.
    fn insists(&self, program: &str, arguments: &[&str]) -> Result<()> {
        show(program, arguments);
        let done = self.program(program).args(arguments).output();
        let done = done.with_context(|| format!("starting {program}"))?;
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
        // A function's answer need not end its line.
        for said in [done.stdout, done.stderr] {
            indent(String::from_utf8_lossy(&said).trim_end());
        }
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
