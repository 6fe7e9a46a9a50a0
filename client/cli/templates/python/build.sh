#!/bin/sh
# componentize-py puts CPython, its standard library and src/ into one component: function.wasm.
set -e
componentize-py --quiet --wit-path wit --world function componentize --python-path src --output function.wasm app
