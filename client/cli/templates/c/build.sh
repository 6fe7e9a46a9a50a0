#!/bin/sh
# zig compiles the C, wasm-tools puts the interfaces in wit/ around it: function.wasm. The same source makes the same bytes.
set -e
python3 -m ziglang cc -target wasm32-freestanding -Os -nostdlib -Wall -Wextra -Wl,--no-entry -Wl,--strip-all \
    -o core.wasm src/*.c
wasm-tools component embed wit --world function core.wasm -o core.wasm
wasm-tools component new core.wasm -o function.wasm
rm core.wasm
