// Text as bytes and back, in UTF-8: this JavaScript engine has no TextEncoder.

/** The UTF-8 bytes of a string; half of a surrogate pair becomes the replacement character. */
export function encode(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text.toWellFormed())), (char) => char.charCodeAt(0));
}

/** The string that bytes spell. Throws a URIError where they are not UTF-8. */
export function decode(bytes) {
  let escaped = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    escaped += escape(String.fromCharCode(...bytes.subarray(at, at + 4096)));
  }
  return decodeURIComponent(escaped);
}
