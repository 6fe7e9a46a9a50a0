//! Who plays in the tests: a world of maps, and guests written in text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bield_envelope::{Seeded, Time};
use bield_package::tensor::Tensor;
use rand_core::Rng as _;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::{
    Answer, BucketId, CasToken, Function, Host, KeyPage, KvError, Level, Limits, ModelId, NnError,
    NnErrorKind, Request, Seen, Settings, Stopped, World,
};

/// Buckets `things` (atomic) and `loose` (eventual); `theirs` is denied. The model `double` doubles.
pub(super) struct Maps {
    pub(super) things: Things,
    random: Seeded,
    now: Time,
    /// Told of each line of the log.
    told: Option<Box<dyn FnMut() + Send>>,
}

/// What outlives a request.
pub(super) type Things = Arc<Mutex<Kept>>;

#[derive(Default)]
pub(super) struct Kept {
    pub(super) values: BTreeMap<(u32, String), (u64, Vec<u8>)>,
    pub(super) log: Vec<(Level, String)>,
    /// Values that were read.
    pub(super) reads: u64,
    writes: u64,
}

const BUCKETS: [&str; 2] = ["things", "loose"];
const LOOSE: u32 = 1;
const PAGE: usize = 3;

impl Maps {
    pub(super) fn new(things: &Things) -> Self {
        Self::seeded(things, 1, Time::from_secs(1_000_000))
    }

    pub(super) fn seeded(things: &Things, seed: u64, now: Time) -> Self {
        Self {
            things: Arc::clone(things),
            random: Seeded::new(seed),
            now,
            told: None,
        }
    }

    /// Calls `told` while the guest waits for a line of its log to be taken.
    pub(super) fn telling(self, told: impl FnMut() + Send + 'static) -> Self {
        let told = Some(Box::new(told) as Box<dyn FnMut() + Send>);
        Self { told, ..self }
    }

    fn atomic(bucket: BucketId) -> Result<(), KvError> {
        match bucket.0 {
            LOOSE => Err(KvError::unsupported("the bucket is eventual")),
            _ => Ok(()),
        }
    }
}

impl World for Maps {
    fn now(&self) -> Time {
        self.now
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.random.fill_bytes(bytes);
    }

    fn log(&mut self, level: Level, line: &str) {
        let mut kept = self.things.lock().unwrap();
        kept.log.push((level, line.to_owned()));
        drop(kept);
        if let Some(told) = &mut self.told {
            told();
        }
    }

    fn open(&mut self, bucket: &str) -> Result<BucketId, KvError> {
        match BUCKETS.iter().position(|name| *name == bucket) {
            Some(index) => Ok(BucketId(index as u32)),
            None if bucket == "theirs" => Err(KvError::AccessDenied),
            None => Err(KvError::NoSuchStore),
        }
    }

    fn get(&mut self, bucket: BucketId, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let mut kept = self.things.lock().unwrap();
        kept.reads += 1;
        let found = kept.values.get(&(bucket.0, key.to_owned()));
        Ok(found.map(|(_, value)| value.clone()))
    }

    fn set(&mut self, bucket: BucketId, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        let mut kept = self.things.lock().unwrap();
        kept.writes += 1;
        let write = kept.writes;
        kept.values
            .insert((bucket.0, key.to_owned()), (write, value));
        Ok(())
    }

    fn delete(&mut self, bucket: BucketId, key: &str) -> Result<(), KvError> {
        let mut kept = self.things.lock().unwrap();
        kept.values.remove(&(bucket.0, key.to_owned()));
        Ok(())
    }

    fn exists(&mut self, bucket: BucketId, key: &str) -> Result<bool, KvError> {
        Ok(self.get(bucket, key)?.is_some())
    }

    fn list_keys(&mut self, bucket: BucketId, cursor: Option<&str>) -> Result<KeyPage, KvError> {
        let kept = self.things.lock().unwrap();
        let from = cursor.unwrap_or("");
        let mut keys: Vec<String> = (kept.values.keys())
            .filter(|(of, key)| *of == bucket.0 && key.as_str() >= from)
            .map(|(_, key)| key.clone())
            .take(PAGE + 1)
            .collect();
        let cursor = (keys.len() > PAGE).then(|| keys.pop().unwrap());
        Ok(KeyPage { keys, cursor })
    }

    fn increment(&mut self, bucket: BucketId, key: &str, delta: i64) -> Result<i64, KvError> {
        Self::atomic(bucket)?;
        let text = self.get(bucket, key)?.unwrap_or(b"0".to_vec());
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse::<i64>().ok());
        let sum = number
            .and_then(|number| number.checked_add(delta))
            .ok_or(KvError::Other("not a number".into()))?;
        self.set(bucket, key, sum.to_string().into_bytes())?;
        Ok(sum)
    }

    fn get_for_swap(&mut self, bucket: BucketId, key: &str) -> Result<Seen, KvError> {
        Self::atomic(bucket)?;
        let kept = self.things.lock().unwrap();
        let found = kept.values.get(&(bucket.0, key.to_owned()));
        Ok(Seen {
            value: found.map(|(_, value)| value.clone()),
            token: CasToken(found.map_or(0, |(write, _)| *write).to_be_bytes().to_vec()),
        })
    }

    fn swap(
        &mut self,
        bucket: BucketId,
        key: &str,
        token: &CasToken,
        value: Vec<u8>,
    ) -> Result<bool, KvError> {
        if self.get_for_swap(bucket, key)?.token != *token {
            return Ok(false);
        }
        self.set(bucket, key, value)?;
        Ok(true)
    }

    fn set_many(&mut self, bucket: BucketId, pairs: Vec<(String, Vec<u8>)>) -> Result<(), KvError> {
        let mut pairs = pairs.into_iter();
        pairs.try_for_each(|(key, value)| self.set(bucket, &key, value))
    }

    fn delete_many(&mut self, bucket: BucketId, keys: &[String]) -> Result<(), KvError> {
        keys.iter().try_for_each(|key| self.delete(bucket, key))
    }

    fn load_model(&mut self, name: &str) -> Result<ModelId, NnError> {
        match name {
            "double" => Ok(ModelId(0)),
            _ => Err(NnError::new(NnErrorKind::NotFound, "no such model")),
        }
    }

    fn compute(&mut self, _: ModelId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, NnError> {
        let doubled = |tensor: &Tensor| {
            let values = tensor
                .to_f32()
                .ok_or(NnError::new(NnErrorKind::InvalidArgument, "it takes f32"))?;
            let values: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
            Ok(Tensor::from_f32("doubled", tensor.shape(), &values).unwrap())
        };
        inputs.iter().map(doubled).collect()
    }
}

/// A component around a core module of text. `imports` come first in it, `handle` is the body of the handler, which has
/// `$path`, `$type`, `$body`, `$caller` and their `…_len`, and returns `$answer` or `$refuse`; `more` is whatever else.
pub(super) fn guest(imports: &str, more: &str, handle: &str) -> Vec<u8> {
    guest_of_pages(2, imports, more, handle)
}

/// As [`guest`], with so many pages of memory to begin with; requests are put into the second page and on.
pub(super) fn guest_of_pages(pages: usize, imports: &str, more: &str, handle: &str) -> Vec<u8> {
    component(&format!(
        r#"(module
  {imports}
  (memory (export "memory") {pages})
  (global $next (mut i32) (i32.const 65536))
  (func $realloc (export "cabi_realloc") (param $old i32) (param $old_len i32) (param i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (block $fits
      (loop $more
        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
        unreachable))
    (memory.copy (local.get $at) (local.get $old) (local.get $old_len))
    (local.get $at))
  (data (i32.const 8) "text/plain")
  (func $answer (param $at i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 8))
    (i32.store (i32.const 1032) (i32.const 10))
    (i32.store (i32.const 1036) (local.get $at))
    (i32.store (i32.const 1040) (local.get $len))
    (i32.const 1024))
  (func $refuse (param $kind i32) (param $at i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1028) (local.get $kind))
    (i32.store (i32.const 1032) (local.get $at))
    (i32.store (i32.const 1036) (local.get $len))
    (i32.const 1024))
  {more}
  (func (export "bield:function/handler@0.1.0#handle")
    (param $path i32) (param $path_len i32) (param $type i32) (param $type_len i32)
    (param $body i32) (param $body_len i32) (param $caller i32) (param $caller_len i32) (result i32)
    (local $a i32) (local $b i32)
    {handle}))"#
    ))
}

/// A component of the world `function` around a core module of text.
pub(super) fn component(module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let (resolve, world) = resolve();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

/// The world that guests of tests are of.
pub(super) fn resolve() -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/wit");
    resolve.push_path(wit).unwrap();
    resolve.push_path(format!("{wit}-draft")).unwrap();
    let package = resolve.push_str("system.wit", SYSTEM).unwrap();
    let world = resolve.select_world(&[package], Some("system")).unwrap();
    (resolve, world)
}

/// The world, and what runtimes of languages import beside it. Only what a module imports ends up in its component.
const SYSTEM: &str = r#"
package test:system;
package wasi:random@0.2.0 { interface random { get-random-bytes: func(len: u64) -> list<u8>; } }
package wasi:clocks@0.2.0 {
    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
    interface monotonic-clock { now: func() -> u64; }
}
package wasi:cli@0.2.0 {
    interface environment {
        get-arguments: func() -> list<string>;
        get-environment: func() -> list<tuple<string, string>>;
    }
    interface exit { exit: func(status: result); }
}
world system {
    include bield:function/function@0.1.0;
    include wasi:keyvalue/imports@0.2.0-draft;
    import wasi:random/random@0.2.0;
    import wasi:clocks/wall-clock@0.2.0;
    import wasi:clocks/monotonic-clock@0.2.0;
    import wasi:cli/environment@0.2.0;
    import wasi:cli/exit@0.2.0;
}"#;

/// Answers with its body.
pub(super) fn echo() -> Vec<u8> {
    guest(
        "",
        "",
        "(call $answer (local.get $body) (local.get $body_len))",
    )
}

pub(super) fn host() -> Host {
    Host::new(Settings::Machine, 4).unwrap()
}

pub(super) fn load(host: &Host, wasm: &[u8]) -> Function {
    host.load(&host.compile(wasm).unwrap()).unwrap()
}

pub(super) fn request(path: &str, body: &[u8]) -> Request {
    Request {
        path: path.into(),
        content_type: String::new(),
        body: body.to_vec().into(),
        caller: "ab".repeat(32),
    }
}

pub(super) fn ask(
    function: &Function,
    things: &Things,
    path: &str,
    body: &[u8],
) -> Result<Answer, Stopped> {
    let world = Box::new(Maps::new(things));
    function.call(request(path, body), world, &Limits::default())
}

/// What was answered, or the kind and the words of the refusal, or why it was stopped.
pub(super) fn shown(answer: &Result<Answer, Stopped>) -> String {
    match answer {
        Ok(Ok(response)) => String::from_utf8_lossy(&response.body).into_owned(),
        Ok(Err(failure)) => format!("{:?}: {}", failure.kind, failure.message),
        Err(stopped) => format!("{stopped:?}"),
    }
}
