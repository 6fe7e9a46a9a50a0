// wasi:keyvalue/atomics on the maps of store.js: requests take turns in an isolate, so everything between two awaits is one
// step. Numbers are kept as decimal text, as in bield.

const [spell, read] = [new TextEncoder(), new TextDecoder()];

export function increment(bucket, key, delta) {
  const value = bucket.get(key);
  const sum = (value ? Number(read.decode(value)) : 0) + delta;
  bucket.set(key, spell.encode(String(sum)));
  return sum;
}

export class Cas {
  constructor() {
    throw new Error("not used by this function");
  }
}

export function swap() {
  throw new Error("not used by this function");
}
