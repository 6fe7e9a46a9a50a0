// Counters by name. What callers add at once is all counted, because adding is one step of a linearizable bucket.

import { badRequest, serve } from "./bield/handler.js";
import { open } from "./bield/kv.js";

export const handler = serve({
  // `{ "name": "clicks", "by": 1 }`, both optional; answers with the sum.
  "/add": (request) => {
    const { name = "clicks", by = 1 } = request.body.length ? request.json() : {};
    if (typeof name !== "string" || !name) throw badRequest("name is a text");
    if (!Number.isSafeInteger(by)) throw badRequest("by is a whole number");
    return { name, value: open("counters").increment(name, by) };
  },

  // Every counter with its value. A number is kept as decimal text.
  "/list": () => {
    const counters = open("counters");
    const pairs = counters.getMany(counters.keys());
    return Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]));
  },
});
