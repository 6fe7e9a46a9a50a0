#!/bin/sh
# rustc's target wasm32-wasip2 makes components: function.wasm.
set -e
cargo build --release --quiet --target wasm32-wasip2 --target-dir target
cp target/wasm32-wasip2/release/function.wasm function.wasm
