//! The least of an OpenWhisk platform: one invoker in front of one worker's action face.
//!
//! ```text
//!  PUT …/actions/… ─▶ POST /init, once      POST …/actions/… ─▶ POST /run ─▶ a record of what it came to
//! ```
//!
//! It judges answers as OpenWhisk's invoker does: 503 is "not here", 200 with `error` the action's own error, anything else the
//! developer's; an answer without a length is none.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

/// A platform with one container. Its thread ends with the process.
pub struct Invoker {
    address: SocketAddr,
}

impl Invoker {
    /// Serves on a free port in front of the worker at `url`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (url, initialised) = (url.to_owned(), Arc::new(AtomicBool::new(false)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (url, initialised) = (url.clone(), Arc::clone(&initialised));
                // One that breaks off is its client's to notice.
                std::thread::spawn(move || serve(client, &url, &initialised));
            }
        });
        Ok(Self { address })
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

/// Answers one request and closes.
fn serve(client: TcpStream, worker: &str, initialised: &AtomicBool) -> anyhow::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let method = words.next().context("a method")?.to_owned();
    let path = words.next().context("a path")?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let (status, said) = match method.as_str() {
        "PUT" if !initialised.swap(true, Ordering::SeqCst) => post(worker, "/init", &json!({}))?,
        "PUT" | "DELETE" => (200, json!({})),
        "POST" if path.contains("/actions/") => run(worker, &serde_json::from_slice(&body)?)?,
        _ => (
            404,
            json!({ "error": "The requested resource does not exist." }),
        ),
    };
    let said = said.to_string();
    let mut client = client;
    write!(
        client,
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
        said.len()
    )?;
    Ok(())
}

/// One activation.
fn run(worker: &str, parameters: &Value) -> anyhow::Result<(u16, Value)> {
    let deadline = SystemTime::now() + Duration::from_secs(60);
    let deadline = deadline.duration_since(UNIX_EPOCH)?.as_millis();
    let activation = json!({
        "value": parameters, "namespace": "lab", "action_name": "bield-0", "action_version": "0.0.1",
        "activation_id": "4f1c", "transaction_id": "1", "deadline": deadline.to_string(),
    });
    let (status, result) = post(worker, "/run", &activation)?;
    let (status, word) = match (status, result.get("error")) {
        (503, _) => return Ok((503, json!({ "error": "there is no other container" }))),
        (200, None) => (200, "success"),
        (200, Some(_)) => (502, "application error"),
        _ => (502, "action developer error"),
    };
    let success = word == "success";
    let response = json!({ "status": word, "success": success, "result": result });
    Ok((
        status,
        json!({ "activationId": "4f1c", "response": response }),
    ))
}

fn post(worker: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.proxy(None).build().new_agent();
    let request = agent.post(format!("{worker}{path}"));
    let mut answer = request.send(body.to_string())?;
    anyhow::ensure!(
        answer.headers().contains_key("content-length"),
        "an answer without a length"
    );
    let text = answer
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_vec()?;
    Ok((answer.status().as_u16(), serde_json::from_slice(&text)?))
}
