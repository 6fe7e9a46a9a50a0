//! Random guests: whatever they are, the host neither panics nor hangs nor gives them more than their limits, and what
//! is asked next is answered.

use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use bield_envelope::Seeded;
use rand_core::Rng as _;
use wasm_smith::{Config, Module};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::cast::{Maps, Things, echo, host, load, request, resolve, shown};
use crate::Limits;

/// Guests per run: some 20 ms each.
const GUESTS: u64 = 150;

const LIMITS: Limits = Limits {
    memory_bytes: 8 << 20,
    deadline: Duration::from_millis(50),
    host_calls: 1000,
    host_bytes: 1 << 20,
    handles: 16,
    output_bytes: 1 << 20,
    log_bytes: 1 << 16,
};

/// What a guest has to export, and what it may import.
const SHAPE: &str = r#"(module
  (import "bield:function/log@0.1.0" "write" (func (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.list-keys" (func (param i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "swap" (func (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/batch@0.2.0-draft2" "delete-many" (func (param i32 i32 i32 i32)))
  (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor" (func (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:nn/inference@0.2.0-rc-2024-10-28" "[method]graph-execution-context.compute" (func (param i32 i32 i32 i32)))
  (import "wasi:random/random@0.2.0" "get-random-bytes" (func (param i64 i32)))
  (memory (export "memory") 1 100)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "bield:function/handler@0.1.0#handle") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#;

#[test]
fn random_guests_end_in_time_and_harm_nobody() {
    let host = host();
    let good = load(&host, &echo());
    let (resolve, world) = resolve();
    let (mut compiled, mut answered, mut stopped) = (0, 0, 0);
    for seed in 0..GUESTS {
        let mut bytes = vec![0; 16 << 10];
        Seeded::new(seed).fill_bytes(&mut bytes);
        let config = Config {
            module_shape: Some(wat::parse_str(SHAPE).unwrap()),
            max_memory32_bytes: 100 << 16,
            gc_enabled: false,
            // `externref` is for programs with a collector.
            reference_types_enabled: false,
            exceptions_enabled: false,
            threads_enabled: false,
            memory64_enabled: false,
            custom_page_sizes_enabled: false,
            ..Config::default()
        };
        let module = Module::new(config, &mut Unstructured::new(&bytes)).unwrap();
        let mut module = module.to_bytes();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        // Not every random module is one that a component can be made around.
        let ready = || {
            let mut encoder = ComponentEncoder::default().module(&module).ok()?;
            let compiled = host.compile(&encoder.encode().ok()?).ok()?;
            host.load(&compiled).ok()
        };
        let Some(function) = ready() else { continue };
        compiled += 1;
        let begun = Instant::now();
        let world = || Box::new(Maps::new(&Things::default()));
        match function.call(request("/", b"hello"), world(), &LIMITS) {
            Ok(_) => answered += 1,
            Err(_) => stopped += 1,
        }
        // Wide enough for any machine, narrow enough for what never ends.
        assert!(begun.elapsed() < Duration::from_secs(20), "seed {seed}");
        let next = good.call(request("/", b"hello"), world(), &Limits::default());
        assert_eq!(shown(&next), "hello", "seed {seed}");
    }
    assert!(compiled > GUESTS / 2, "{compiled} of {GUESTS} compiled");
    assert!(stopped > 0, "{answered} answered, {stopped} stopped");
}
