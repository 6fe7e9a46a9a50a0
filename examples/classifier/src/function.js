// What kind of file is this? A sealed model answers, and what it said is kept for the one who asked.
//
// Files, names and answers are plaintext in this function only: requests come sealed, the model runs in the same enclave,
// and what the bucket keeps leaves the enclave sealed.

import { badRequest, notFound, serve } from "./bield/handler.js";
import { json, open } from "./bield/kv.js";
import { model, tensor } from "./bield/nn.js";
import { FEATURES, features } from "./features.js";
import { LABELS } from "./labels.js";

export const handler = serve({
  // The body is a file, the rest of the path what to remember it as: `/classify/letter.txt`.
  "/classify/*": (request) => {
    if (!request.rest) throw badRequest("what is the file called? /classify/NAME");
    const result = kindOf(request.body);
    open("results", json).set(owned(request, request.rest), result);
    return result;
  },

  // What the caller's files were.
  "/list": (request) => {
    const results = open("results", json);
    const before = owned(request, "");
    const mine = results.getMany(results.keys(before));
    return Object.fromEntries(mine.map(([key, result]) => [key.slice(before.length), result]));
  },

  // Forgets what a file was.
  "/forget/*": (request) => {
    const results = open("results", json);
    const key = owned(request, request.rest);
    if (!results.exists(key)) throw notFound(`nothing is known of ${request.rest}`);
    results.delete(key);
    return {};
  },
});

function kindOf(file) {
  const input = tensor("I32", [1, FEATURES], features(file));
  const [scores] = Object.values(model("magika").run({ bytes: input }));
  const best = scores.data.reduce((best, score, at) => (score > scores.data[best] ? at : best), 0);
  return { kind: LABELS[best], score: Number(scores.data[best].toFixed(3)) };
}

/** The key of a caller's file. A caller is 64 hexadecimal digits, so no name reaches into what is another's. */
function owned(request, name) {
  return `${request.caller}/${name}`;
}
