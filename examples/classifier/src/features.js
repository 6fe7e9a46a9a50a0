// What a file looks like to the model: the first and last 1024 bytes of it, white space at the very ends left out, 256
// standing for "no byte".

export const FEATURES = 2048;

const SIDE = FEATURES / 2;
const BLOCK = 4096;
const PADDING = 256;

/** The model's input for a file's bytes. */
export function features(file) {
  const first = file.subarray(0, BLOCK);
  const begins = first.findIndex((byte) => !isSpace(byte));
  const last = file.subarray(Math.max(0, file.length - BLOCK));
  const ends = last.findLastIndex((byte) => !isSpace(byte)) + 1;

  const features = new Int32Array(FEATURES).fill(PADDING);
  if (begins >= 0) features.set(first.subarray(begins, begins + SIDE));
  const tail = last.subarray(Math.max(0, ends - SIDE), ends);
  features.set(tail, FEATURES - tail.length);
  return features;
}

function isSpace(byte) {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}
