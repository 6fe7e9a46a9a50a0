// What this function does. Each request gets an instance of its own: only buckets outlive it.

import { serve } from "./bield/handler.js";
import { open } from "./bield/kv.js";

export const handler = serve({
  // Counts how often each caller came by.
  "/visit": (request) => {
    const visits = open("visits").increment(request.caller);
    return { visits };
  },

  // Who came how often. A number is kept as decimal text.
  "/visitors": () => {
    const visits = open("visits");
    return Object.fromEntries(visits.getMany(visits.keys()).map(([caller, times]) => [caller, Number(times)]));
  },
});
