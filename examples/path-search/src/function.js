// Many workers search for the shortest way through one map and tell each other, through a bucket, how good a way they know:
// none of them follows what cannot become better than the best of all (as the planner MPLambda does on serverless workers).
//
// Every worker writes under a key of its own, so nobody overwrites anybody, and an eventual bucket is enough: the best is
// the least of all keys, and one that is a little old only means a little work in vain.

import { badRequest, notFound, serve } from "./bield/handler.js";
import { json, open } from "./bield/kv.js";
import { GOAL, START, obstacles, search } from "./plan.js";

export const handler = serve({
  // `{ "map": 1, "worker": "a", "seed": 7, "steps": 400 }`: goes on searching, from another seed each time.
  "/search": (request) => {
    const { map, worker, seed, steps } = order(request);
    const paths = open("paths", json);
    const mine = `${map}/${worker}`;
    let improved = 0;
    const bound = () => best(paths, map)?.length ?? Infinity;
    const nodes = search(map, seed, steps, bound, (path, length) => {
      paths.set(mine, { path, length });
      improved += 1;
    });
    return { nodes, improved, best: best(paths, map)?.length ?? null };
  },

  // `{ "map": 1 }`: the shortest way that anybody found, and what it goes around.
  "/best": (request) => {
    const { map } = order(request);
    const found = best(open("paths", json), map);
    if (!found) throw notFound(`no way through map ${map} is known yet`);
    return { ...found, start: START, goal: GOAL, obstacles: obstacles(map) };
  },
});

/** The shortest path that is known. */
function best(paths, map) {
  const known = paths.getMany(paths.keys(`${map}/`)).map(([, found]) => found);
  return known.reduce((best, found) => (found.length < (best?.length ?? Infinity) ? found : best), null);
}

function order(request) {
  const { map = 1, worker = "a", seed = 1, steps = 400 } = request.json();
  const whole = [map, seed, steps].every((number) => Number.isSafeInteger(number) && number >= 0);
  if (!whole || steps > STEPS_MAX) throw badRequest(`map, seed and steps are whole numbers, steps up to ${STEPS_MAX}`);
  if (typeof worker !== "string") throw badRequest("worker is a text");
  return { map, worker, seed, steps };
}

/** About a second of one core. */
const STEPS_MAX = 2000;
