//! The faces over real sockets, with played models behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use bield_envelope::Digest;
use bield_protocol::tensor::ElementType;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::played::Played;

mod embeddings;

/// A proxy in a thread; stops when dropped.
struct Running {
    url: String,
    played: Arc<Played>,
    _stop: oneshot::Sender<()>,
}

/// What came back.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Running {
    fn start() -> Self {
        Self::with(None, HashMap::new())
    }

    fn with(token: Option<Token>, readings: HashMap<String, Reading>) -> Self {
        let played = Arc::new(Played::default());
        let front = Arc::new(Front::new(played.clone(), readings, token));
        let (address, listens) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let proxy = Proxy::of(front, free(), None).await.unwrap();
                address.send(proxy.rest_address().unwrap()).unwrap();
                proxy.serve(async { drop(stopped.await) }).await;
            });
        });
        let url = format!("http://{}", listens.recv().unwrap());
        Self {
            url,
            played,
            _stop: stop,
        }
    }

    fn get(&self, path: &str) -> Answer {
        let request = agent().get(format!("{}{path}", self.url));
        answer(request.call())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = agent().post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    fn infer(&self, request: &Value) -> Answer {
        self.post("/v2/models/echo/infer", &[], request.to_string().as_bytes())
    }

    fn embed(&self, request: &Value) -> Answer {
        self.post("/v1/embeddings", &[], request.to_string().as_bytes())
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    config
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

fn answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let (head, mut body) = answer.unwrap().into_parts();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.read_to_vec().unwrap(),
    }
}

fn free() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn input(name: &str, datatype: &str, data: &Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": [1, 2], "data": data})
}

#[tokio::test]
async fn only_loopback_addresses_are_listened_on() {
    let front = || {
        Arc::new(Front::new(
            Arc::new(Played::default()),
            HashMap::new(),
            None,
        ))
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address = address.parse().unwrap();
        let refused = Proxy::of(front(), address, None).await.err();
        assert!(
            matches!(refused, Some(ProxyError::NotLoopback(_))),
            "{address}"
        );
        let refused = Proxy::of(front(), free(), Some(address)).await.err();
        assert!(
            matches!(refused, Some(ProxyError::NotLoopback(_))),
            "{address}"
        );
    }
}

#[test]
fn the_server_and_its_models_are_described() {
    let proxy = Running::start();
    assert_eq!(
        proxy.get("/v2").json()["extensions"][0],
        "binary_tensor_data"
    );
    assert_eq!(proxy.get("/v2/health/live").json()["live"], true);
    assert_eq!(proxy.get("/v2/health/ready").status, 200);
    assert_eq!(proxy.get("/v2/models/echo/ready").json()["ready"], true);
    let about = proxy.get("/v2/models/echo/versions/7").json();
    assert_eq!(about["versions"], json!(["7"]));
    assert_eq!(
        about["inputs"][0],
        json!({"name": "f32", "datatype": "FP32", "shape": [-1, 2]})
    );
    assert_eq!(proxy.get("/v2/models/echo/versions/8").status, 404);
    assert_eq!(proxy.get("/v2/models/other").status, 404);
    let index = proxy.post("/v2/repository/index", &[], b"").json();
    assert_eq!(
        index[0],
        json!({"name": "echo", "version": "7", "state": "READY", "reason": ""})
    );
    let models = proxy.get("/v1/models").json();
    assert_eq!(
        (&models["object"], &models["data"][1]["id"]),
        (&json!("list"), &json!("words"))
    );
    assert_eq!(proxy.get("/v1/models/words").json()["object"], "model");
}

#[test]
fn every_datatype_goes_through_as_json_and_raw() {
    let proxy = Running::start();
    let string = [&3u32.to_le_bytes()[..], b"abc", &0u32.to_le_bytes()[..]].concat();
    for (element, text) in [
        ("f32", json!([0.5, -1.0])),
        ("f64", json!([0.1, 1e300])),
        ("i8", json!([-128, 127])),
        ("i16", json!([-32768, 32767])),
        ("i32", json!([1, -1])),
        ("i64", json!([i64::MIN, i64::MAX])),
        ("u8", json!([0, 255])),
        ("u16", json!([0, 65535])),
        ("u32", json!([0, u32::MAX])),
        ("u64", json!([0, u64::MAX])),
        ("bool", json!([true, false])),
        ("string", json!(["abc", ""])),
        ("f16", Value::Null),
    ] {
        let kind: ElementType = element.parse().unwrap();
        let datatype = match element {
            "string" => "BYTES".to_owned(),
            "bool" => "BOOL".to_owned(),
            other => other
                .to_uppercase()
                .replace('F', "FP")
                .replace('I', "INT")
                .replace('U', "UINT"),
        };
        if !text.is_null() {
            let told =
                proxy.infer(&json!({"id": "a7", "inputs": [input(element, &datatype, &text)]}));
            let value = told.json();
            assert_eq!((told.status, &value["id"]), (200, &json!("a7")), "{value}");
            assert_eq!(value["outputs"][0]["data"], text, "{element}");
            assert_eq!(value["outputs"][0]["datatype"], datatype.as_str());
        }
        let raw = kind
            .size_bytes()
            .map_or(string.clone(), |size| vec![1; 2 * size]);
        let header = json!({
            "inputs": [{"name": element, "datatype": datatype, "shape": [1, 2],
                        "parameters": {"binary_data_size": raw.len()}}],
            "outputs": [{"name": element, "parameters": {"binary_data": true}}],
        });
        let header = header.to_string();
        let body = [header.as_bytes(), &raw].concat();
        let length = header.len().to_string();
        let told = proxy.post(
            "/v2/models/echo/infer",
            &[("inference-header-content-length", &length)],
            &body,
        );
        assert_eq!(
            told.status,
            200,
            "{element}: {:?}",
            String::from_utf8_lossy(&told.body)
        );
        let json = told
            .header("inference-header-content-length")
            .parse()
            .unwrap();
        let (head, tail) = told.body.split_at(json);
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(tail, raw, "{element}");
        assert_eq!(
            head["outputs"][0]["parameters"]["binary_data_size"],
            raw.len()
        );
        assert_eq!(told.header("content-type"), "application/octet-stream");
    }
}

#[test]
fn an_answer_names_its_receipt_and_how_little_the_rest_is_worth() {
    let proxy = Running::start();
    let told = proxy.infer(&json!({"inputs": [input("i32", "INT32", &json!([1, 2]))]}));
    let receipt = told.header("bield-receipt").to_owned();
    assert!(receipt.parse::<Digest>().is_ok(), "{receipt}");
    assert_eq!(told.json()["parameters"]["bield_receipt"], receipt);
    assert_eq!(told.header("bield-start"), "hot (unproven)");
    assert_eq!(told.header("bield-tee"), "simulated");
    assert_eq!(told.header("access-control-allow-origin"), "");
}

#[test]
fn a_bad_request_is_told_why_and_nothing_is_called() {
    let proxy = Running::start();
    let good = input("i32", "INT32", &json!([1, 2]));
    let mut region = good.clone();
    region["parameters"] = json!({"shared_memory_region": "x"});
    let mut both = good.clone();
    both["parameters"] = json!({"binary_data_size": 8});
    for (request, why) in [
        (json!({}), "missing field `inputs`"),
        (
            json!({"inputs": [input("i32", "INT32", &json!([1, 2, 3]))]}),
            "12 bytes",
        ),
        (
            json!({"inputs": [input("i32", "INT32", &json!([1, 4_711_000_000_u64]))]}),
            "INT32 can hold",
        ),
        (
            json!({"inputs": [input("i32", "BF16", &json!([1, 2]))]}),
            "datatype",
        ),
        (
            json!({"inputs": [input("i32", "FP16", &json!([1, 2]))]}),
            "raw",
        ),
        (json!({"inputs": [region]}), "shared memory"),
        (json!({"inputs": [both]}), "either"),
        (
            json!({"inputs": [good], "outputs": [{"name": "i32", "parameters": {"classification": 3}}]}),
            "classification",
        ),
        (
            json!({"inputs": [good], "outputs": [{"name": "i32"}, {"name": "i32"}]}),
            "twice",
        ),
        (
            json!({"inputs": [good], "parameters": {"sequence_id": 5}}),
            "sequences",
        ),
        (json!({"inputs": "4711"}), "expected"),
    ] {
        let told = proxy.infer(&request);
        let error = told.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(told.status, 400, "{request}: {error}");
        assert!(
            error.contains(why) && !error.contains("4711"),
            "{request}: {error}"
        );
    }
    let told = proxy.post(
        "/v2/models/echo/infer",
        &[("inference-header-content-length", "9")],
        b"{}",
    );
    assert_eq!(told.status, 400);
    let told = proxy.post(
        "/v2/models/echo/infer",
        &[("content-encoding", "gzip")],
        b"{}",
    );
    assert_eq!(told.status, 415);
    assert_eq!(proxy.played.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_refusal_keeps_its_status_and_when_to_come_again_on_every_face() {
    let proxy = Running::start();
    let refuses = || {
        let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "queue-full", "later");
        *proxy.played.refuses.lock().unwrap() = Some(refused.after(Duration::from_secs(3)));
    };
    refuses();
    let told = proxy.infer(&json!({"inputs": [input("i32", "INT32", &json!([1, 2]))]}));
    assert_eq!((told.status, told.header("retry-after")), (503, "3"));
    assert_eq!(told.json(), json!({"error": "later"}));
    assert_eq!(told.header("bield-refusal"), "queue-full");
    refuses();
    let told = proxy.embed(&json!({"model": "words", "input": [3]}));
    assert_eq!((told.status, told.header("retry-after")), (503, "3"));
    assert_eq!(told.json()["error"]["code"], "queue-full");
    refuses();
    let refused = proxy.played.refuses.lock().unwrap().take().unwrap();
    let status = tonic::Status::from(refused);
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.metadata().get("retry-after").unwrap(), "3");
}

#[test]
fn what_was_sealed_for_another_transport_is_opened_once() {
    use base64::Engine as _;

    let proxy = Running::start();
    let request = json!({"inputs": [input("i32", "INT32", &json!([1, 2]))]});
    let sealed = proxy
        .post("/v1/seal/echo", &[], request.to_string().as_bytes())
        .json();
    let path = format!("/v1/open/{}", sealed["id"].as_str().unwrap());
    let answer = base64::engine::general_purpose::STANDARD.encode("answer");
    let answer = json!({"sealed": answer}).to_string();
    let opened = proxy.post(&path, &[], answer.as_bytes());
    assert_eq!(opened.json()["outputs"][0]["data"], json!([1, 2]));
    assert!(!opened.header("bield-receipt").is_empty());
    assert_eq!(proxy.post(&path, &[], answer.as_bytes()).status, 404);
    assert_eq!(
        proxy.post("/v1/open/zz", &[], answer.as_bytes()).status,
        404
    );
}

#[test]
fn other_names_pages_and_paths_are_refused() {
    let proxy = Running::start();
    let told = proxy.post("/v2/repository/index", &[("host", "evil.example")], b"");
    assert_eq!(told.status, 403);
    let told = proxy.post("/v1/embeddings", &[("origin", "https://evil.example")], b"");
    assert_eq!(
        (told.status, &told.json()["error"]["type"]),
        (403, &json!("permission_error"))
    );
    assert_eq!(proxy.get("/").status, 404);
    assert_eq!(proxy.get("/v2/models/echo/infer").status, 405);
    assert_eq!(
        proxy.get("/v1/embeddings").json()["error"]["code"],
        "other-method"
    );
}

#[test]
fn without_the_token_nothing_is_told() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let proxy = Running::with(Token::read(&path).ok(), HashMap::new());
    for path in ["/v2", "/v1/models", "/nowhere"] {
        let told = proxy.get(path);
        assert_eq!(
            (told.status, told.header("www-authenticate")),
            (401, "Bearer"),
            "{path}"
        );
    }
    let shown = [("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(proxy.post("/v2/repository/index", &shown, b"").status, 200);
}
