// Buckets: what outlives a request. bield.toml declares each and how consistent it is.
//
//   const stock = open("stock", json);
//   stock.update("apples", (left) => (left ?? 0) + 5);
//
// Always true: a key that has no value gives null; a number that this engine cannot hold exactly is an error, not rounded.
// Not here: consistency. On an eventual bucket `increment` and `update` are refused by bield, not imitated.

import { Cas, increment, swap } from "wasi:keyvalue/atomics@0.2.0-draft2";
import { deleteMany, getMany, setMany } from "wasi:keyvalue/batch@0.2.0-draft2";
import store from "wasi:keyvalue/store@0.2.0-draft2";

import { conflict } from "./handler.js";
import * as utf8 from "./text.js";

/** How values are written: as text (the usual), */
export const text = { encode: utf8.encode, decode: utf8.decode };
/** as anything that JSON can say, */
export const json = {
  encode: (value) => utf8.encode(JSON.stringify(value)),
  decode: (bytes) => JSON.parse(utf8.decode(bytes)),
};
/** or as they are, a Uint8Array. */
export const bytes = { encode: (value) => value, decode: (value) => value };

/** Opens a bucket that bield.toml declares. */
export function open(name, codec = text) {
  return new Bucket(name, codec, said(name, () => store.open(name)));
}

class Bucket {
  #name;
  #codec;
  #store;

  constructor(name, codec, opened) {
    this.#name = name;
    this.#codec = codec;
    this.#store = opened;
  }

  /** The value of a key, or null. */
  get(key) {
    return this.#read(this.#said(() => this.#store.get(key)));
  }

  /** Gives a key a value, whatever it had. */
  set(key, value) {
    this.#said(() => this.#store.set(key, this.#codec.encode(value)));
  }

  /** Removes a key, if there. */
  delete(key) {
    this.#said(() => this.#store.delete(key));
  }

  /** Whether a key has a value. */
  exists(key) {
    return this.#said(() => this.#store.exists(key));
  }

  /** Every key that begins with `prefix`, in order. Goes through the whole bucket. */
  keys(prefix = "") {
    const found = [];
    let cursor = null;
    do {
      const page = this.#said(() => this.#store.listKeys(cursor));
      for (const key of page.keys) if (key.startsWith(prefix)) found.push(key);
      cursor = page.cursor;
    } while (cursor !== null);
    return found;
  }

  /** Values of several keys, as pairs, in one call; keys without a value are left out. */
  getMany(keys) {
    const found = this.#said(() => getMany(this.#store, keys));
    return found.filter((pair) => pair !== null).map(([key, value]) => [key, this.#read(value)]);
  }

  /** Gives several keys their values, as pairs. May happen in part if it fails. */
  setMany(pairs) {
    this.#said(() => setMany(this.#store, pairs.map(([key, value]) => [key, this.#codec.encode(value)])));
  }

  /** Removes several keys. */
  deleteMany(keys) {
    this.#said(() => deleteMany(this.#store, keys));
  }

  /** Adds to the integer under a key, at once with nothing between; returns the sum. A key with no value counts as 0. */
  increment(key, by = 1) {
    // This engine ends a function that passes a BigInt here, and rounds what a double cannot hold.
    const delta = Number(by);
    if (!Number.isSafeInteger(delta)) throw new RangeError(`cannot add ${by}: not a whole number below 2^53`);
    const sum = this.#said(() => increment(this.#store, key, delta));
    if (!Number.isSafeInteger(sum)) throw new RangeError(`the sum under ${key} went beyond 2^53`);
    return sum;
  }

  /**
   * Replaces a value by what `change` makes of it (of null, if the key has none), with nothing between: if somebody else
   * wrote meanwhile, `change` is asked again. If it returns undefined, or throws, nothing is written. Returns what it
   * returned.
   */
  update(key, change) {
    let cas = this.#said(() => Cas.new(this.#store, key));
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const next = change(this.#read(this.#said(() => cas.current())));
      if (next === undefined) return undefined;
      try {
        swap(cas, this.#codec.encode(next));
        return next;
      } catch (error) {
        if (error?.payload?.tag !== "cas-failed") throw described(this.#name, error);
        cas = error.payload.val;
      }
    }
    throw conflict(`${key} is written by too many at once; try again`);
  }

  #read(value) {
    return value === null ? null : this.#codec.decode(value);
  }

  #said(operation) {
    return said(this.#name, operation);
  }
}

/** Runs an operation; what bield answers when it refuses becomes an error in words. */
function said(bucket, operation) {
  try {
    return operation();
  } catch (error) {
    throw described(bucket, error);
  }
}

function described(bucket, error) {
  let reason = error?.payload;
  if (reason?.tag === "store-error") reason = reason.val;
  switch (reason?.tag) {
    case "no-such-store":
      return new Error(`bucket ${bucket}: bield.toml declares none of that name`);
    case "access-denied":
      return new Error(`bucket ${bucket}: this function may not open it`);
    case "other":
      return new Error(`bucket ${bucket}: ${reason.val}`);
    default:
      return error;
  }
}

/** Each failed try means that somebody else succeeded, so this is met only where very many write one key. */
const TRIES_MAX = 100;
