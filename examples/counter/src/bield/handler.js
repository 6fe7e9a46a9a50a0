// The door of a function: requests by path in, answers or refusals out.
//
//   export const handler = serve({ "/greet": (request) => `Hello, ${request.text()}` });
//
// Always true: whatever a route throws becomes an answer. (An exception that reached the engine would end the instance, and
// its caller would learn nothing.) What a Refusal says, its caller reads; of any other error only the owner's log does.

import log from "bield:function/log@0.1.0";

import { decode, encode } from "./text.js";

/** What a route throws to refuse; `kind` is one of the errors of wit/world.wit. */
export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The request makes no sense. */
export const badRequest = (message) => new Refusal("bad-request", message);
/** What it asks for is not there. */
export const notFound = (message) => new Refusal("not-found", message);
/** This caller may not. */
export const denied = (message) => new Refusal("denied", message);
/** It contradicts what is stored. */
export const conflict = (message) => new Refusal("conflict", message);

/**
 * The handler that a function exports. `routes` maps a path to what answers it: "/cart/add" that path, "/files/*" whatever
 * begins with "/files/". Given `{ path, rest, caller, contentType, body, text(), json() }`, where `rest` is what the star
 * stands for, a route returns a string, bytes, or anything that JSON can say.
 */
export function serve(routes) {
  const paths = new Map(Object.entries(routes));
  return {
    handle({ path: asked, contentType, body, caller }) {
      try {
        const path = `/${asked.replace(/^\/+/, "")}`;
        const slash = path.indexOf("/", 1) + 1;
        const route = paths.get(path) ?? (slash && paths.get(`${path.slice(0, slash)}*`));
        if (!route) throw notFound(`nothing at ${path}; there is ${[...paths.keys()].join(", ")}`);
        const text = () => spelled(body);
        const json = () => parsed(text());
        return answer(route({ path, rest: path.slice(slash), caller, contentType, body, text, json }));
      } catch (error) {
        throw refusal(error);
      }
    },
  };
}

/** Lines for the function's owner. */
export const logs = {
  debug: (message) => log.write("debug", String(message)),
  info: (message) => log.write("info", String(message)),
  warn: (message) => log.write("warn", String(message)),
  error: (message) => log.write("error", String(message)),
};

function answer(value) {
  if (typeof value === "string") return { contentType: "text/plain; charset=utf-8", body: encode(value) };
  if (value instanceof Uint8Array) return { contentType: "application/octet-stream", body: value };
  const json = JSON.stringify(value ?? null);
  if (json === undefined) throw new TypeError(`a route returned a ${typeof value}; it is not async, is it?`);
  return { contentType: "application/json", body: encode(json) };
}

function spelled(bytes) {
  try {
    return decode(bytes);
  } catch {
    throw badRequest("the body is not UTF-8");
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw badRequest("the body is not JSON");
  }
}

function refusal(error) {
  if (error instanceof Refusal) return { tag: error.kind, val: error.message };
  logs.error(error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ""}` : error);
  return { tag: "failed", val: "the function failed; its owner's log says how" };
}
