// Sealed models, by the name that bield.toml gives them. They run in the enclave's own engine, outside of WebAssembly.
//
//   const { scores } = model("magika").run({ bytes: tensor("I32", [1, 2048], features) });
//
// A tensor is `{ type, shape, data }` with `data` a typed array.

import { loadByName } from "wasi:nn/graph@0.2.0-rc-2024-10-28";
import { Tensor } from "wasi:nn/tensor@0.2.0-rc-2024-10-28";

import { denied } from "./handler.js";

/** The model of that name. */
export function model(name) {
  const context = said(name, () => said(name, () => loadByName(name)).initExecutionContext());
  return {
    /** Runs it: tensors by the names of the model's inputs in, tensors by the names of its outputs out. */
    run(inputs) {
      const named = Object.entries(inputs).map(([input, { type, shape, data }]) => {
        return [input, new Tensor(shape, type, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
      });
      const outputs = said(name, () => context.compute(named));
      return Object.fromEntries(outputs.map(([output, made]) => [output, read(made)]));
    },
  };
}

/** A tensor of "FP32", "FP64", "U8" or "I32" from numbers; of "I64" from BigInts. */
export function tensor(type, shape, numbers) {
  return { type, shape, data: arrayOf(type).from(numbers) };
}

function read(made) {
  const type = made.ty();
  const data = Uint8Array.from(made.data());
  return { type, shape: made.dimensions(), data: new (arrayOf(type))(data.buffer) };
}

function arrayOf(type) {
  const array = ARRAYS[type];
  if (!array) throw new TypeError(`tensors of ${type} are not for JavaScript`);
  return array;
}

function said(name, operation) {
  try {
    return operation();
  } catch (error) {
    const reason = error?.payload;
    if (!reason?.code) throw error;
    const kind = reason.code();
    // Whether this caller may use the model is for the caller to know, and to ask its owner for.
    if (kind === "security") throw denied(`model ${name}: ${reason.data()}`);
    throw new Error(`model ${name}: ${kind}: ${reason.data()}`);
  }
}

const ARRAYS = { FP16: Float16Array, FP32: Float32Array, FP64: Float64Array, U8: Uint8Array, I32: Int32Array, I64: BigInt64Array };
