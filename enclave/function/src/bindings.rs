//! Rust of the interfaces in `wit/` and `wit-draft/`, made by wasmtime's own generator.
//!
//! Host functions run to their end on the stack of the request that calls them; each may end the request.

wasmtime::component::bindgen!({
    path: "wit",
    world: "function",
    imports: { default: trappable },
    exports: { default: async },
    trappable_error_type: {
        "wasi:keyvalue/store.error" => crate::keyvalue::Refused,
    },
    with: {
        "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::keyvalue::Swap,
        "wasi:nn/tensor.tensor": crate::inference::GuestTensor,
        "wasi:nn/graph.graph": crate::inference::Graph,
        "wasi:nn/inference.graph-execution-context": crate::inference::Context,
        "wasi:nn/errors.error": crate::world::NnError,
    },
});

/// `wasi:keyvalue` as it was before `wit/` has it.
pub(crate) mod draft {
    wasmtime::component::bindgen!({
        path: "wit-draft",
        world: "imports",
        imports: { default: trappable },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => crate::keyvalue::Refused,
        },
        with: {
            "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket,
        },
    });
}
