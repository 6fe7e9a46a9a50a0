// A second host for the same component: Node's WebAssembly, with bindings by jco and buckets that are maps.
//
// Standard input: { component: path, place: folder, buckets: [name], requests: [{ path, caller, body: base64 }] }.
// Standard output: { answers: [{ contentType, body } or { kind, words }], values: { bucket: { key: base64 } } }.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import v8 from "node:v8";

import { transpile } from "@bytecodealliance/jco-transpile";
import { WASIShim } from "@bytecodealliance/preview2-shim/instantiation";

// Node 20 has it behind a flag; components of QuickJS need it.
if (process.versions.node.startsWith("20.")) v8.setFlagsFromString("--experimental-wasm-extended-const");

const asked = JSON.parse(await readFile("/dev/stdin", "utf8"));
const buckets = new Map(asked.buckets.map((name) => [name, new Map()]));
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const number = (bytes) => (bytes ? BigInt(Buffer.from(bytes).toString()) : 0n);

class Bucket {
  constructor(values) { this.values = values; }
  get(key) { return this.values.get(key); }
  set(key, value) { this.values.set(key, value); }
  delete(key) { this.values.delete(key); }
  exists(key) { return this.values.has(key); }
  listKeys() { return { keys: [...this.values.keys()].sort(), cursor: undefined }; }
}

class Cas {
  constructor(bucket, key) { Object.assign(this, { bucket, key, seen: bucket.values.get(key) }); }
  static new(bucket, key) { return new Cas(bucket, key); }
  current() { return this.seen; }
}

const store = {
  Bucket,
  open(name) {
    if (!buckets.has(name)) throw { tag: "no-such-store" };
    return new Bucket(buckets.get(name));
  },
};
const atomics = {
  Cas,
  increment(bucket, key, delta) {
    const sum = number(bucket.values.get(key)) + delta;
    bucket.values.set(key, Buffer.from(String(sum)));
    return sum;
  },
  swap(cas, value) {
    if (cas.bucket.values.get(cas.key) !== cas.seen) throw { tag: "cas-failed", val: new Cas(cas.bucket, cas.key) };
    cas.bucket.values.set(cas.key, value);
  },
};
const batch = {
  getMany: ({ values }, keys) => keys.map((key) => (values.has(key) ? [key, values.get(key)] : undefined)),
  setMany: ({ values }, pairs) => pairs.forEach(([key, value]) => values.set(key, value)),
  deleteMany: ({ values }, keys) => keys.forEach((key) => values.delete(key)),
};
// There are no models here.
class Graph {}
class GraphExecutionContext {}
class Tensor {}
class NnError {
  code() { return "not-found"; }
  data() { return "no such model"; }
}
function noModel() { throw new NnError(); }

const imports = {
  ...new WASIShim().getImportObject(),
  "bield:function/log": { write() {} },
  "wasi:keyvalue/store": store,
  "wasi:keyvalue/atomics": atomics,
  "wasi:keyvalue/batch": batch,
  "wasi:nn/tensor": { Tensor },
  "wasi:nn/errors": { Error: NnError },
  "wasi:nn/inference": { GraphExecutionContext },
  "wasi:nn/graph": { Graph, load: noModel, loadByName: noModel },
};

const { files } = await transpile(asked.component, {
  name: "guest",
  outDir: asked.place,
  instantiation: { tag: "async" },
  noTypescript: true,
});
for (const [path, contents] of Object.entries(files)) {
  const to = path.startsWith("/") ? path : join(asked.place, path);
  await mkdir(dirname(to), { recursive: true });
  await writeFile(to, contents);
}
await writeFile(join(asked.place, "package.json"), '{ "type": "module" }');
const { instantiate } = await import(pathToFileURL(join(asked.place, "guest.js")));

const modules = new Map();
async function module(name) {
  if (!modules.has(name)) modules.set(name, await WebAssembly.compile(await readFile(join(asked.place, name))));
  return modules.get(name);
}

const answers = [];
for (const { path, caller, body } of asked.requests) {
  // As bield does it: an instance for each request.
  const { handler } = await instantiate(module, imports);
  try {
    const made = handler.handle({ path, contentType: "", body: Buffer.from(body, "base64"), caller });
    answers.push({ contentType: made.contentType, body: base64(made.body) });
  } catch (error) {
    const refused = error.payload ?? error;
    if (!refused.tag) throw error;
    answers.push({ kind: refused.tag, words: refused.val });
  }
}
const values = [...buckets].map(([name, kept]) => [name, Object.fromEntries([...kept].map(([k, v]) => [k, base64(v)]))]);
console.log(JSON.stringify({ answers, values: Object.fromEntries(values) }));
