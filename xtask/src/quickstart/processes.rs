//! Processes of the story: started, waited for, killed as the story says, and stopped at its end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Stack, indent, show};

/// How long a stack may take to become ready on a slow machine.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a program may take to stop in good order.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A process that is stopped when this is dropped.
pub(super) struct Stopped(pub(super) Child);

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
pub(super) fn start(command: &mut Command) -> Result<Child> {
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

pub(super) fn quiet(command: &mut Command) -> Result<Child> {
    silent(command.stdin(Stdio::null()))
}

/// Starts a stack again, without a word.
pub(super) fn restart(command: &mut Command) -> Result<Child> {
    silent(command.stdin(Stdio::piped()))
}

fn silent(command: &mut Command) -> Result<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("starting {command:?}"))
}

pub(super) fn arguments_of(command: &Command) -> Vec<String> {
    command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect()
}

/// Waits until something listens and its workers are ready.
pub(super) fn wait_for(address: SocketAddr) -> Result<()> {
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
pub(super) fn restart_runtime(stack: &Stack) -> Result<()> {
    let runtimes = descendants(stack.child.0.id(), "bield-runtime");
    ensure!(!runtimes.is_empty(), "no runtime is running");
    for process in runtimes {
        let process = process.to_string();
        let told = Command::new("kill").arg("-KILL").arg(process).status()?;
        ensure!(told.success(), "the runtime could not be stopped");
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

pub(super) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .context("finding a free port")?
        .local_addr()?)
}
