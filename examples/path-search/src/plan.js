// Growing a tree of free steps from the start until one reaches the goal (RRT), cut back by what others found already.
//
// The world is the unit square with round obstacles. Always true: the same map, seed and bounds give the same path; a path
// begins at START, ends at GOAL, and no part of it lies within an obstacle.

export const START = [0.05, 0.05];
export const GOAL = [0.95, 0.95];

/** Numbers from 0 to 1 that only a seed decides (mulberry32): in this engine Math.random gives every instance the same. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The obstacles of a map, as [x, y, radius]; none covers the start or the goal. */
export function obstacles(map) {
  const random = seeded(map);
  const made = [];
  while (made.length < OBSTACLES) {
    const [x, y, radius] = [random(), random(), 0.04 + 0.08 * random()];
    const clear = [START, GOAL].every((end) => distance(end, [x, y]) > radius + STEP);
    if (clear) made.push([x, y, radius]);
  }
  return made;
}

/**
 * Searches for so many steps. `bound` says the length of the best path known, by anybody; it is asked now and then, and
 * what cannot become shorter is not followed. `found` is told each path that is shorter: its points and its length.
 */
export function search(map, seed, steps, bound, found) {
  const random = seeded(seed);
  const around = obstacles(map);
  const nodes = [{ at: START, length: 0, from: null }];
  let best = Infinity;
  for (let step = 0; step < steps; step++) {
    if (step % LOOK_EVERY === 0) best = Math.min(best, bound());
    const target = random() < GOAL_SHARE ? GOAL : [random(), random()];
    if (distance(START, target) + distance(target, GOAL) >= best) continue;
    const at = towards(nearest(nodes, target).at, target);
    const node = joined(nodes, at, around);
    if (!node || node.length + distance(at, GOAL) >= best) continue;
    nodes.push(node);
    if (distance(at, GOAL) > STEP || !isFree(at, GOAL, around)) continue;
    const path = straightened([...walked(node), GOAL], around);
    const length = lengthOf(path);
    if (length < best) {
      best = length;
      found(path, length);
    }
  }
  return nodes.length;
}

function lengthOf(path) {
  return path.slice(1).reduce((sum, point, at) => sum + distance(path[at], point), 0);
}

function nearest(nodes, point) {
  return nodes.reduce((best, node) => (distance(node.at, point) < distance(best.at, point) ? node : best));
}

function towards(from, to) {
  const far = distance(from, to);
  if (far <= STEP) return to;
  return [from[0] + ((to[0] - from[0]) * STEP) / far, from[1] + ((to[1] - from[1]) * STEP) / far];
}

/** A new node, joined to the one near it by which the way from the start is shortest; none if nothing leads there. */
function joined(nodes, at, around) {
  let best = null;
  for (const from of nodes) {
    const far = distance(from.at, at);
    if (far > NEAR || far === 0) continue;
    const length = from.length + far;
    if (length < (best?.length ?? Infinity) && isFree(from.at, at, around)) best = { at, length, from };
  }
  return best;
}

function walked(node) {
  const path = [];
  for (let at = node; at; at = at.from) path.unshift(at.at);
  return path;
}

/** Goes straight wherever that is free. */
function straightened(path, around) {
  const kept = [path[0]];
  for (let at = 0; at < path.length - 1; ) {
    let next = path.length - 1;
    while (next > at + 1 && !isFree(path[at], path[next], around)) next--;
    kept.push(path[next]);
    at = next;
  }
  return kept;
}

function isFree(from, to, around) {
  return around.every(([x, y, radius]) => {
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    const along = ((x - from[0]) * dx + (y - from[1]) * dy) / (dx * dx + dy * dy);
    const part = Math.min(1, Math.max(0, along));
    return distance([x, y], [from[0] + part * dx, from[1] + part * dy]) > radius;
  });
}

function distance([ax, ay], [bx, by]) {
  return Math.sqrt((ax - bx) ** 2 + (ay - by) ** 2);
}

const OBSTACLES = 24;
const STEP = 0.08;
const NEAR = 0.16;
const GOAL_SHARE = 0.1;
/** Steps between two looks at what others found: a look costs about as much as a step. */
const LOOK_EVERY = 25;
