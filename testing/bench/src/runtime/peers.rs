//! What people use today, on the plaintext file: onnxruntime and OpenVINO in a Python process, onnxruntime behind HTTP
//! servers. Each is optional; one that is missing is named with the reason.
//!
//! `PYTHON` says which Python has them; `pip install onnxruntime numpy openvino fastapi uvicorn mlserver
//! rten-convert` in an environment of its own is enough.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bield_end_to_end::wait_until;
use bield_sdk::{ElementType, Tensor};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::caller::milliseconds;
use super::load::{Load, closed};
use super::models::Subject;

/// How long a peer may take to load a model on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);

/// An engine in Python's process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Onnxruntime,
    Openvino,
}

impl Library {
    const fn module(self) -> &'static str {
        match self {
            Self::Onnxruntime => "onnxruntime",
            Self::Openvino => "openvino",
        }
    }
}

/// Why a module cannot be had; `None` when it can. Asked once for each list.
pub(crate) fn missing(modules: &[&'static str]) -> Option<String> {
    static KNOWN: Mutex<BTreeMap<String, Option<String>>> = Mutex::new(BTreeMap::new());
    let list = modules.join(", ");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(list.clone())
        .or_insert_with(|| {
            let said = script(&format!("import {list}"), &[]);
            said.err().map(|why| format!("{list} in Python: {why:#}"))
        })
        .clone()
}

/// Runs a script; returns what it prints.
fn script(text: &str, arguments: &[&OsStr]) -> Result<String> {
    let done = python().args(["-c", text]).args(arguments).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().last().unwrap_or("it does not start");
    ensure!(done.status.success(), "{last}");
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// What makes an engine's own file of an ONNX file.
#[derive(Clone, Copy)]
pub(crate) enum Converter {
    RtenConvert,
    Onnxruntime,
}

impl Converter {
    pub(crate) const fn ending(self) -> &'static str {
        match self {
            Self::RtenConvert => "rten",
            Self::Onnxruntime => "ort",
        }
    }

    /// Its name and version.
    pub(crate) fn version(self) -> Result<String> {
        let name = match self {
            Self::RtenConvert => "rten-convert",
            Self::Onnxruntime => "onnxruntime",
        };
        let asked = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))";
        let version = script(asked, &[OsStr::new(name)]);
        Ok(format!(
            "{name}-{}",
            version.with_context(|| format!("{name} in Python"))?
        ))
    }

    /// Writes the file.
    pub(crate) fn convert(self, onnx: &Path, into: &Path) -> Result<()> {
        let text = match self {
            Self::RtenConvert => "from rten_convert.converter import main; main()",
            Self::Onnxruntime => include_str!("convert.py"),
        };
        let done = script(text, &[onnx.as_os_str(), into.as_os_str()]);
        done.context("making the engine's own file in Python")?;
        Ok(())
    }
}

/// A Python process that has loaded a model and answered once.
pub(crate) struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Milliseconds to load, and to answer first.
    pub(crate) cold: (f64, f64),
    /// Its first answer's first output.
    pub(crate) output: Vec<f32>,
}

impl Peer {
    /// Starts it on the ONNX file of `subject`.
    pub(crate) fn start(library: Library, subject: &Subject, threads: usize) -> Result<Self> {
        let output = subject
            .listing
            .with_extension(format!("{}.out", library.module()));
        let mut command = python();
        command.args(["-c", include_str!("peer.py"), library.module()]);
        command.arg(&subject.onnx).arg(threads.to_string());
        command.arg(&subject.listing).arg(&output);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting Python")?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let mut peer = Self {
            to: to.context("its standard input")?,
            from: BufReader::new(from.context("its standard output")?),
            child,
            cold: (0.0, 0.0),
            output: Vec::new(),
        };
        let said = peer.read()?;
        ensure!(said.len() == 2, "it said {said:?}");
        peer.cold = (said[0], said[1]);
        peer.output = floats(&fs::read(&output)?);
        Ok(peer)
    }

    /// Milliseconds of one answer.
    fn hot(&mut self) -> Result<f64> {
        writeln!(self.to, "hot 1")?;
        Ok(self.read()?[0])
    }

    /// Answers to so many clients for so long.
    fn load(&mut self, clients: usize, span: Duration) -> Result<Load> {
        writeln!(self.to, "load {clients} {}", span.as_secs_f64())?;
        let mut said = self.read()?;
        let seconds = said.remove(0);
        Ok(Load::of(said, seconds))
    }

    fn read(&mut self) -> Result<Vec<f64>> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("the peer ended; what it said stands above");
        }
        let numbers = line.split_whitespace().map(str::parse::<f64>);
        Ok(numbers.collect::<Result<_, _>>()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of the model over plain HTTP.
pub(crate) struct Server {
    child: Child,
    request: Request,
    _folder: TempDir,
}

/// What is posted where.
struct Request {
    url: String,
    body: Vec<u8>,
    kind: &'static str,
}

impl Server {
    /// FastAPI and onnxruntime: tensors travel as raw bytes, which is the cheapest way for it.
    fn fastapi(subject: &Subject, threads: usize) -> Result<Self> {
        let port = free_port()?;
        let mut command = python();
        command.args(["-c", include_str!("server.py")]);
        command.arg(&subject.onnx).arg(threads.to_string());
        command.arg(&subject.listing).arg(port.to_string());
        let body = subject.inputs.iter().flat_map(|one| one.data().to_vec());
        let request = Request {
            url: format!("http://127.0.0.1:{port}/infer"),
            body: body.collect(),
            kind: "application/octet-stream",
        };
        Self::start(command, request, TempDir::new()?)
    }

    /// MLServer with onnxruntime in a model class of its user's; tensors travel as JSON, as its clients send them.
    fn mlserver(subject: &Subject, threads: usize) -> Result<Self> {
        let folder = TempDir::new()?;
        let (port, others) = (free_port()?, [free_port()?, free_port()?]);
        let settings = json!({
            "host": "127.0.0.1", "http_port": port, "grpc_port": others[0], "metrics_port": others[1],
            "parallel_workers": 0, "debug": false,
        });
        let model = json!({
            "name": "model", "implementation": "served.Served",
            "parameters": {"uri": subject.onnx, "extra": {"threads": threads}},
        });
        fs::write(folder.path().join("settings.json"), settings.to_string())?;
        fs::write(folder.path().join("model-settings.json"), model.to_string())?;
        fs::write(folder.path().join("served.py"), include_str!("mlserver.py"))?;
        let mut command = python();
        command
            .args(["-m", "mlserver.cli.main", "start"])
            .arg(folder.path());
        command
            .env("PYTHONPATH", folder.path())
            .current_dir(folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let body = json!({ "inputs": subject.inputs.iter().map(in_v2).collect::<Vec<_>>() });
        let request = Request {
            url: format!("http://127.0.0.1:{port}/v2/models/model/infer"),
            body: body.to_string().into_bytes(),
            kind: JSON,
        };
        Self::start(command, request, folder)
    }

    fn start(mut command: Command, request: Request, folder: TempDir) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .context("starting Python")?;
        let server = Self {
            child,
            request,
            _folder: folder,
        };
        let agent = Self::agent();
        let mut last = String::new();
        let answers = wait_until(START_WAIT, || match server.post(&agent) {
            Ok(_) => true,
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        ensure!(answers, "the HTTP server does not answer: {last}");
        Ok(server)
    }

    /// One client's connections.
    fn agent() -> Agent {
        let config = Agent::config_builder().proxy(None);
        config.build().new_agent()
    }

    /// The body of one answer.
    fn post(&self, agent: &Agent) -> Result<Vec<u8>> {
        let Request { url, body, kind } = &self.request;
        let post = agent.post(url).header("content-type", *kind);
        let mut answer = post.send(&body[..])?;
        let body = answer.body_mut().with_config().limit(1 << 30);
        Ok(body.read_to_vec()?)
    }

    /// Milliseconds of one answer.
    fn ask(&self, agent: &Agent) -> Result<f64> {
        let started = Instant::now();
        ensure!(!self.post(agent)?.is_empty(), "an empty answer");
        Ok(milliseconds(started))
    }

    /// The first `count` numbers of one answer.
    fn numbers(&self, agent: &Agent, count: usize) -> Result<Vec<f32>> {
        let body = self.post(agent)?;
        if self.request.kind == JSON {
            let answer: Value = serde_json::from_slice(&body)?;
            return Ok(serde_json::from_value(
                answer["outputs"][0]["data"].clone(),
            )?);
        }
        let mut numbers = floats(&body);
        numbers.truncate(count);
        Ok(numbers)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tensor as the Open Inference Protocol writes it in JSON.
fn in_v2(tensor: &Tensor) -> Value {
    let data: Value = match tensor.element() {
        ElementType::F32 => tensor.to_f32().into(),
        ElementType::I32 => tensor.to_i32().into(),
        _ => tensor.to_i64().into(),
    };
    let datatype = match tensor.element() {
        ElementType::F32 => "FP32",
        ElementType::I32 => "INT32",
        _ => "INT64",
    };
    json!({"name": tensor.name(), "shape": tensor.shape(), "datatype": datatype, "data": data})
}

/// What answers the same question on the plaintext file, hot.
pub(crate) enum Rival {
    Python(Peer),
    Http(Server, Agent),
}

impl Rival {
    /// Their names.
    pub(crate) const NAMES: [&'static str; 3] = [
        "plaintext onnxruntime (Python)",
        "plain HTTP, FastAPI + onnxruntime",
        "plain HTTP, MLServer + onnxruntime",
    ];

    /// Starts all; an inner `Err` says why one cannot be had.
    ///
    /// # Errors
    /// One answers otherwise than `expected`, the numbers of the first output.
    pub(crate) fn start(
        subject: &Subject,
        threads: usize,
        expected: &[f32],
    ) -> Result<[Result<Self, String>; 3]> {
        let usable =
            |modules: &[&'static str], start: &dyn Fn() -> Result<Self>| match missing(modules) {
                Some(why) => Err(why),
                None => start().map_err(|error| format!("{error:#}")),
            };
        let http = |server: Server| Self::Http(server, Server::agent());
        let all = [
            usable(&["onnxruntime", "numpy"], &|| {
                let peer = Peer::start(Library::Onnxruntime, subject, threads)?;
                Ok(Self::Python(peer))
            }),
            usable(&["fastapi", "uvicorn", "onnxruntime", "numpy"], &|| {
                Server::fastapi(subject, threads).map(http)
            }),
            usable(&["mlserver", "onnxruntime", "numpy"], &|| {
                Server::mlserver(subject, threads).map(http)
            }),
        ];
        for (one, name) in all.iter().zip(Self::NAMES) {
            let numbers = match one {
                Ok(Self::Python(peer)) => peer.output.clone(),
                Ok(Self::Http(server, agent)) => server.numbers(agent, expected.len())?,
                Err(_) => continue,
            };
            subject.agree(expected, &numbers).context(name)?;
        }
        Ok(all)
    }

    /// Milliseconds of one answer.
    pub(crate) fn hot(&mut self) -> Result<f64> {
        match self {
            Self::Python(peer) => peer.hot(),
            Self::Http(server, agent) => server.ask(agent),
        }
    }

    /// Answers to so many clients for so long.
    pub(crate) fn load(&mut self, clients: usize, span: Duration) -> Result<Load> {
        match self {
            Self::Python(peer) => peer.load(clients, span),
            Self::Http(server, _) => closed(clients, span, &|| {
                let (server, agent) = (&*server, Server::agent());
                Ok(Box::new(move || server.ask(&agent).map(drop)))
            }),
        }
    }
}

/// What MLServer's clients send.
const JSON: &str = "application/json";

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn python() -> Command {
    Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
}
