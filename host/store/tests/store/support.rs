//! Capsules with writers, servers in this process, and a plain HTTP client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_capsule::{
    Acknowledgement, Batch, CapsuleName, Change, GenerationKey, Head, HeadsStatement, Metadata,
    Received, Suite, VerifierPolicy, Writer, WriterId, WriterKey,
};
use bield_envelope::{Seeded, Signed, SigningKey, Time, Verified};
use bield_store::admission::{Admission, Owners, Quotas};
use bield_store::storage::{Directory, Storage};
use bield_store::{Server, ServerSettings, Settings, frames, system};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// A capsule and its owner.
pub(crate) struct Capsule {
    pub(crate) metadata: Metadata,
    pub(crate) owner: Writer,
    pub(crate) generation: GenerationKey,
    pub(crate) entropy: Seeded,
    /// The config chain so far.
    pub(crate) config: Vec<Received>,
}

impl Capsule {
    /// A capsule whose first config record makes generation 1 and says `more`.
    pub(crate) fn new(seed: u64, more: &[Change]) -> Self {
        let mut entropy = Seeded::new(seed);
        let key = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let metadata = Metadata::new(key.public(), Some("test"), now(), &mut entropy).unwrap();
        let generation = GenerationKey::generate(1, &mut entropy);
        let mut changes = vec![Change::Generation {
            number: 1,
            commitment: generation.commitment(&metadata),
        }];
        changes.extend_from_slice(more);
        let (owner, first) = Writer::owner(key, &metadata, &changes, now()).unwrap();
        Self {
            metadata,
            owner,
            generation,
            entropy,
            config: vec![first],
        }
    }

    pub(crate) fn name(&self) -> CapsuleName {
        self.metadata.name()
    }

    /// The owner's next config record.
    pub(crate) fn configure(&mut self, changes: &[Change]) -> Received {
        let record = self.owner.configure(changes, now()).unwrap();
        self.config.push(record.clone());
        record
    }

    /// Admits a new key by a config record; the writer's open record is the second one.
    pub(crate) fn admit(&mut self, seed: u64) -> (Writer, Received) {
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(seed));
        self.configure(&[Change::admit(key.public())]);
        self.open(key, None)
    }

    pub(crate) fn open(
        &mut self,
        key: WriterKey,
        certificate: Option<&[u8]>,
    ) -> (Writer, Received) {
        let config = self.owner.head().unwrap();
        Writer::open(key, &self.metadata, config, certificate, now()).unwrap()
    }

    /// A writer with `count` data records behind its open record.
    pub(crate) fn chain(&mut self, seed: u64, count: usize) -> (Writer, Vec<Received>) {
        let (mut writer, open) = self.admit(seed);
        let mut records = vec![open];
        for n in 0..count {
            records.push(self.data(&mut writer, format!("entry {n}").as_bytes()));
        }
        (writer, records)
    }

    pub(crate) fn data(&mut self, writer: &mut Writer, payload: &[u8]) -> Received {
        let mut batch = Batch::new();
        batch.push(payload).unwrap();
        writer
            .seal(&batch, &self.generation, &[], now(), &mut self.entropy)
            .unwrap()
    }

    /// The same writer again, from its key: what a copied or set-back machine is.
    pub(crate) fn twin(&self, seed: u64, records: &[Received]) -> Writer {
        let mut verifier =
            bield_capsule::Verifier::new(self.metadata.clone(), VerifierPolicy::default());
        for record in self.config.iter().chain(records) {
            let verified = verifier.verify(record.clone()).unwrap();
            verifier.apply(verified).unwrap();
        }
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(seed));
        let chain = verifier.chain(&key.id()).unwrap();
        let (tip, levels) = (chain.signed_head().clone(), chain.levels().clone());
        Writer::resume(
            key,
            &self.metadata,
            &tip,
            self.owner.head().unwrap(),
            levels,
        )
        .unwrap()
    }
}

/// A server in this process, on a directory of its own.
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) directory: Arc<TempDir>,
    server: Option<Server>,
    pub(crate) client: Client,
}

/// What differs from node to node.
pub(crate) struct Setup {
    pub(crate) directory: Arc<TempDir>,
    pub(crate) seed: u64,
    pub(crate) listen: Option<std::net::SocketAddr>,
    pub(crate) peers: Vec<String>,
    pub(crate) follow: bool,
    pub(crate) witnesses: Vec<String>,
    pub(crate) quotas: Quotas,
    pub(crate) owners: Owners,
    pub(crate) stall_max: Duration,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            directory: Arc::new(tempfile::tempdir().unwrap()),
            seed,
            listen: None,
            peers: Vec::new(),
            follow: false,
            witnesses: Vec::new(),
            quotas: Quotas::default(),
            owners: Owners::Any,
            stall_max: WAIT,
        }
    }

    pub(crate) fn start(self) -> Node {
        let storage: Arc<dyn Storage> = Arc::new(Directory::at(self.directory.path()).unwrap());
        let directory = Arc::clone(&self.directory);
        self.start_on(storage, directory)
    }

    pub(crate) fn start_on(self, storage: Arc<dyn Storage>, directory: Arc<TempDir>) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = Settings {
            storage,
            key: SigningKey::generate(&mut Seeded::new(self.seed)),
            admission: Admission::new(self.owners, self.quotas),
            policy: VerifierPolicy::default(),
            shards: 2,
        };
        let mut settings = ServerSettings::alone(store);
        settings.peer_interval = Duration::from_millis(100);
        settings.follow = self.follow;
        settings.stall_max = self.stall_max;
        settings.peers = self
            .peers
            .iter()
            .map(|peer| peer.parse().unwrap())
            .collect();
        settings.witnesses = self.witnesses.iter().map(|w| w.parse().unwrap()).collect();
        if let Some(listen) = self.listen {
            settings.listen = listen;
        }
        let server = runtime.block_on(Server::start(settings)).unwrap();
        let client = Client::new(&server.url());
        Node {
            runtime,
            directory,
            server: Some(server),
            client,
        }
    }
}

/// The principal of the node with this seed.
pub(crate) fn principal(seed: u64) -> bield_envelope::Principal {
    SigningKey::generate(&mut Seeded::new(seed)).principal()
}

impl Node {
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.server().url()
    }

    pub(crate) fn metrics(&self) -> &bield_store::metrics::Metrics {
        self.server().store().metrics()
    }

    /// Ends the server; the directory and its address stay.
    pub(crate) fn stop(mut self) -> (Arc<TempDir>, std::net::SocketAddr) {
        let server = self.server.take().unwrap();
        let address = server.address();
        self.runtime.block_on(server.stop(Duration::from_secs(5)));
        (Arc::clone(&self.directory), address)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime
                .block_on(server.stop(Duration::from_millis(200)));
        }
    }
}

/// Speaks to one store.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    agent: ureq::Agent,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and slug of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (
            self.status,
            self.json()["error"].as_str().unwrap().to_owned(),
        )
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(WAIT));
        Self {
            url: url.to_owned(),
            agent: config.build().into(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.url)).call()).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.try_post(path, body).unwrap()
    }

    pub(crate) fn try_post(&self, path: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        answer(self.agent.post(format!("{}{path}", self.url)).send(body))
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Answer {
        answer(self.agent.put(format!("{}{path}", self.url)).send(body)).unwrap()
    }

    pub(crate) fn create(&self, capsule: &Capsule) -> Answer {
        self.put(
            &format!("/v1/capsules/{}", capsule.name()),
            capsule.metadata.as_bytes(),
        )
    }

    pub(crate) fn append(&self, name: &CapsuleName, records: &[Received]) -> Answer {
        self.append_kept(name, records, "synced")
    }

    pub(crate) fn append_kept(
        &self,
        name: &CapsuleName,
        records: &[Received],
        kept: &str,
    ) -> Answer {
        self.post(
            &format!("/v1/capsules/{name}/records?kept={kept}"),
            &framed(records),
        )
    }

    /// Creates the capsule and sends its configuration and `records`; all must be taken.
    pub(crate) fn fill(&self, capsule: &Capsule, records: &[Received]) {
        self.create(capsule);
        let config = self.append(&capsule.name(), &capsule.config);
        assert_eq!(config.status, 200, "{}", config.text());
        if !records.is_empty() {
            let sent = self.append(&capsule.name(), records);
            assert_eq!(sent.status, 200, "{}", sent.text());
        }
    }

    pub(crate) fn records(&self, name: &CapsuleName, writer: &WriterId) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let page = self.get(&format!(
                "/v1/capsules/{name}/records/{writer}?from={}",
                all.len()
            ));
            if page.status == 404 {
                return all;
            }
            assert_eq!(page.status, 200, "{}", page.text());
            all.extend(unframed(&page.body));
            if page.headers["bield-more"] == "false" {
                return all;
            }
        }
    }

    pub(crate) fn heads(&self, name: &CapsuleName, nonce: [u8; 16]) -> Verified<HeadsStatement> {
        let page = self.get(&format!(
            "/v1/capsules/{name}/heads?nonce={}",
            hex::encode(nonce)
        ));
        assert_eq!(page.status, 200, "{}", page.text());
        Signed::<HeadsStatement>::decode(&page.body)
            .unwrap()
            .verify_claimed()
            .unwrap()
    }

    pub(crate) fn head_of(&self, name: &CapsuleName, writer: &WriterId) -> Option<Head> {
        let answer = self.get(&format!(
            "/v1/capsules/{name}/heads?nonce={}",
            "00".repeat(16)
        ));
        if answer.status != 200 {
            return None;
        }
        let said = Signed::<HeadsStatement>::decode(&answer.body)
            .unwrap()
            .verify_claimed()
            .unwrap();
        said.head_of(writer)
    }

    pub(crate) fn forks(&self, name: &CapsuleName) -> Vec<Vec<u8>> {
        let answer = self.get(&format!("/v1/capsules/{name}/forks"));
        if answer.status != 200 {
            return Vec::new();
        }
        frames::items(&answer.body)
            .map(|item| item.unwrap().to_vec())
            .collect()
    }
}

fn answer(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, ureq::Error> {
    let (parts, mut body) = result?.into_parts();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.with_config().limit(64 << 20).read_to_vec()?,
    })
}

pub(crate) fn framed(records: &[Received]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        frames::push(&mut body, record.as_bytes());
    }
    body
}

pub(crate) fn unframed(body: &[u8]) -> Vec<Received> {
    let items = frames::items(body);
    items
        .map(|item| Received::decode(item.unwrap().to_vec()).unwrap())
        .collect()
}

/// The acknowledgements in a body, signed by anyone.
pub(crate) fn acknowledgements(body: &[u8]) -> Vec<Verified<Acknowledgement>> {
    let items = frames::items(body);
    items
        .map(|item| {
            Signed::<Acknowledgement>::decode(item.unwrap())
                .unwrap()
                .verify_claimed()
                .unwrap()
        })
        .collect()
}

/// Tries until it holds, or fails the test.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT, "not within {WAIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn now() -> Time {
    system::now()
}
