// wasi:keyvalue/store in maps that end with the isolate.

const buckets = new Map();

class Bucket {
  values = new Map();
  get(key) {
    return this.values.get(key) ?? null;
  }
  set(key, value) {
    this.values.set(key, value);
  }
  delete(key) {
    this.values.delete(key);
  }
  exists(key) {
    return this.values.has(key);
  }
  listKeys() {
    return { keys: [...this.values.keys()].sort(), cursor: null };
  }
}

export default {
  open(name) {
    if (!buckets.has(name)) buckets.set(name, new Bucket());
    return buckets.get(name);
  },
};
