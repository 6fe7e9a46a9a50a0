//! What is compiled loads; what was sealed opens for what it was sealed for, and for nothing else.

use bield_envelope::{Secret, Seeded};
use wasmtime::Engine;

use crate::{CompileError, Compiled, Identity, Processor, Settings, compile, component_digest};

const ADD: &str = r#"(component
  (core module $m (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
  (core instance $i (instantiate $m))
  (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add"))))"#;

struct Cast {
    engine: Engine,
    compiled: Compiled,
    identity: Identity,
    key: Secret,
    sealed: Vec<u8>,
}

fn cast() -> Cast {
    let engine = Engine::new(&Settings::Machine.config()).unwrap();
    let wasm = wat::parse_str(ADD).unwrap();
    let compiled = compile(&engine, &wasm).unwrap();
    let identity = Identity::here(component_digest(&wasm), Settings::Machine);
    let key = Secret::from_bytes([7; 32]);
    let sealed = compiled.seal(&key, &identity, &mut Seeded::new(1));
    Cast {
        engine,
        compiled,
        identity,
        key,
        sealed,
    }
}

#[test]
fn sealed_code_opens_and_loads() {
    let cast = cast();
    assert_eq!(cast.compiled.component(), cast.identity.component);
    let opened = Compiled::open(&cast.key, &cast.identity, &cast.sealed).unwrap();
    assert_eq!(opened.component(), cast.identity.component);
    assert!(cast.compiled.load(&cast.engine).is_ok());
    assert!(opened.load(&cast.engine).is_ok());
}

#[test]
fn altered_code_never_gets_as_far_as_loading() {
    let cast = cast();
    let refused = |sealed: &[u8]| Compiled::open(&cast.key, &cast.identity, sealed).is_err();
    let bits = cast.sealed.len() * 8;
    // Each of the head's, then 800 spread over the rest.
    for bit in (0..48 * 8).chain((48 * 8..bits).step_by(bits / 800 + 1)) {
        let mut altered = cast.sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&altered), "bit {bit}");
    }
    for length in [0, 7, 8, 39, 40, 55, 56, cast.sealed.len() - 1] {
        assert!(refused(&cast.sealed[..length]), "{length} bytes");
    }
    let mut longer = cast.sealed.clone();
    longer.push(0);
    assert!(refused(&longer));
}

#[test]
fn code_of_another_identity_or_key_does_not_open() {
    let cast = cast();
    let identity = || cast.identity.clone();
    for other in [
        Identity {
            component: [0; 32],
            ..identity()
        },
        Identity {
            settings: Settings::Library,
            ..identity()
        },
        Identity {
            processor: Processor::named(format!("{}+amx", identity().processor)),
            ..identity()
        },
        Identity {
            release: "48.0.7 bield 1".into(),
            ..identity()
        },
    ] {
        assert!(
            Compiled::open(&cast.key, &other, &cast.sealed).is_err(),
            "{other:?}"
        );
    }
    let other = Secret::from_bytes([8; 32]);
    assert!(Compiled::open(&other, &cast.identity, &cast.sealed).is_err());
}

#[test]
fn code_of_other_settings_does_not_load() {
    let library = Engine::new(&Settings::Library.config()).unwrap();
    assert!(cast().compiled.load(&library).is_err());
}

#[test]
fn native_code_is_refused_with_a_sentence_of_its_own() {
    let cast = cast();
    let wasm = wat::parse_str(ADD).unwrap();
    let native = cast.engine.precompile_component(&wasm).unwrap();
    let refused = compile(&cast.engine, &native).err().unwrap();
    assert_eq!(refused, CompileError::Native);
    assert!(
        refused
            .to_string()
            .starts_with("this is native code (.cwasm)")
    );
}
