//! A function's developer without anybody there: what is missing is said, and what comes next.

use std::fs;

use crate::stage::{Stage, closed_port};

const CART: &str = r#"
[function]
name = "cart"
version = "0.1.0"
source = "function.wasm"
build = "cp made function.wasm"

[[bucket]]
name = "shop"
consistency = "linearizable"
durability = "local-sync"
"#;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0one";

#[test]
fn what_is_missing_for_a_deployment_is_said_before_anybody_is_asked() {
    let stage = Stage::new();
    let said = |arguments: &[&str], code: i32| {
        let ran = stage.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        ran.err
    };
    let nothing = said(&["deploy"], 2);
    assert!(
        nothing.contains("bield.toml") && nothing.contains("bield new"),
        "{nothing}"
    );
    let nothing = said(&["dev", "--function", "."], 2);
    assert!(nothing.contains("bield new"), "{nothing}");

    fs::create_dir(stage.path("cart")).unwrap();
    stage.write("cart/bield.toml", CART.replace("durability", "durabillity"));
    assert!(said(&["deploy", "cart"], 2).contains("line 11"));
    stage.write("cart/bield.toml", CART);
    assert!(said(&["deploy", "cart"], 2).contains("bield init"));
    said(&["init"], 0);
    assert!(said(&["deploy", "cart"], 2).contains("bield init --trust"));
    assert!(said(&["logs", "cart"], 2).contains("bield init --trust"));
}

#[test]
fn an_unbuilt_function_and_nobody_there_are_told_apart() {
    let stage = Stage::with_trust(&[closed_port()]);
    fs::create_dir(stage.path("cart")).unwrap();
    stage.write("cart/bield.toml", CART);
    // A home that trusts somebody's deployment is not made one of a development deployment.
    let other = stage.run(&["dev", "--function", "cart"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("--home"), "{}", other.err);
    let unbuilt = stage.run(&["deploy", "cart"]);
    assert_eq!(unbuilt.code, 2);
    assert!(
        unbuilt.err.contains("`cp made function.wasm` makes it") && unbuilt.err.contains("--build"),
        "{}",
        unbuilt.err
    );
    let broken = stage.run(&["deploy", "cart", "--build"]);
    assert_eq!(broken.code, 2);
    assert!(
        broken.err.contains("`cp made function.wasm` failed"),
        "{}",
        broken.err
    );
    stage.write("cart/made", b"hello");
    let other = stage.run(&["deploy", "cart", "--build"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("does not begin as one"), "{}", other.err);

    stage.write("cart/made", b"");
    let empty = stage.run(&["deploy", "cart", "--build"]);
    assert!(
        empty.err.contains("function.wasm is empty"),
        "{}",
        empty.err
    );
    // Code is no model, whatever it is called by and whatever is in it.
    for (file, bytes, words) in [
        ("it.wasm", COMPONENT, "packed by its bield.toml"),
        ("it.cwasm", b"\x7fELF\x02\x01\x01\0", "never accepted"),
        ("it.cwasm", b"", "does not begin as one"),
        ("it", b"\x7fELF\x02\x01\x01\0", "never accepted"),
    ] {
        stage.write(file, bytes);
        let refused = stage.run(&["pack", file, "-o", "it.bield"]);
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains(words), "{file}: {}", refused.err);
    }

    stage.write("cart/made", COMPONENT);
    let nobody = stage.run(&["--json", "deploy", "cart", "--build"]);
    assert_eq!(nobody.code, 3, "{}", nobody.err);
    assert_eq!(nobody.json()["error"]["kind"], "unreachable");
    assert!(!stage.path("home/functions").exists(), "nothing was made");
    assert_eq!(stage.run(&["logs", "cart"]).code, 3);
    assert_eq!(stage.run(&["logs", "cart", "--owner", "nobody"]).code, 2);

    // The model is named before anything is built or asked.
    let with_model = format!("{CART}\n[[model]]\nname = \"kinds\"\npackage = \"kinds@1\"\n");
    stage.write("cart/bield.toml", with_model);
    let missing = stage.run(&["deploy", "cart"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.err.contains("model kinds") && missing.err.contains("pack it first"),
        "{}",
        missing.err
    );
}
