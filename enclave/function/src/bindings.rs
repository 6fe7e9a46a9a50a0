//! Rust of the interfaces in `wit/`, made by wasmtime's own generator.
//!
//! Host functions run to their end on the stack of the request that calls them; each may end the request.

wasmtime::component::bindgen!({
    path: "wit",
    world: "function",
    imports: { default: trappable },
    exports: { default: async },
    with: {
        "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::keyvalue::Swap,
        "wasi:nn/tensor.tensor": crate::inference::GuestTensor,
        "wasi:nn/graph.graph": crate::inference::Graph,
        "wasi:nn/inference.graph-execution-context": crate::inference::Context,
        "wasi:nn/errors.error": crate::world::NnError,
    },
});
