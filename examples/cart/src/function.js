// A shop whose carts are shared and whose stock cannot be sold twice.
//
// Everything about one item stands under one key: how many are left, and how many each cart holds. Taking an item moves a
// number from one to the other in a single compare-and-swap. So whoever buys at the same time, and wherever a call ends
// early, nothing is on the shelf and in a cart at once, and nothing is in neither.
//
//   item = { left: 3, held: { family: 2 }, sold: 5 }      left + all held + sold changes by `restock` only

import { badRequest, conflict, denied, notFound, serve } from "./bield/handler.js";
import { json, open } from "./bield/kv.js";

export const handler = serve({
  // `{ "item": "apples", "count": 10 }`: for the keeper of the shop, who is whoever restocks first.
  "/restock": (request) => {
    const { item, count } = order(request);
    const keeper = open("shop").update("keeper", (keeper) => keeper ?? request.caller);
    if (keeper !== request.caller) throw denied("only the keeper of the shop restocks");
    const { left } = open("stock", json).update(item, (known) => {
      const now = known ?? { left: 0, held: {}, sold: 0 };
      return { ...now, left: now.left + count };
    });
    return { item, left };
  },

  // `{ "cart": "family", "item": "apples", "count": 2 }`: whoever names a cart shares it.
  "/add": (request) => {
    const { cart, item, count } = order(request);
    const { left } = change(item, ({ left, held, sold }) => {
      if (left < count) throw conflict(`${left} of ${item} left`);
      return { left: left - count, held: { ...held, [cart]: holds(held, cart) + count }, sold };
    });
    return { cart, item, left };
  },

  // Puts some back on the shelf.
  "/remove": (request) => {
    const { cart, item, count } = order(request);
    const { left } = change(item, ({ left, held, sold }) => {
      if (holds(held, cart) < count) throw conflict(`the cart holds ${holds(held, cart)} of ${item}`);
      return { left: left + count, held: without(held, cart, count), sold };
    });
    return { cart, item, left };
  },

  // `{ "cart": "family" }`: what is in it.
  "/show": (request) => contents(order(request).cart),

  // Sells what is in the cart, item by item: a call that ended early sold some, the next one sells the rest.
  "/checkout": (request) => {
    const { cart } = order(request);
    const bought = Object.keys(contents(cart)).map((item) => {
      let count = 0;
      change(item, ({ left, held, sold }) => {
        count = holds(held, cart);
        return { left, held: without(held, cart, count), sold: sold + count };
      });
      return [item, count];
    });
    return Object.fromEntries(bought);
  },

  // What is on the shelf.
  "/stock": () => {
    const stock = open("stock", json);
    return Object.fromEntries(stock.getMany(stock.keys()).map(([item, { left }]) => [item, left]));
  },
});

/** What was asked for, each part as it should be. */
function order(request) {
  const { cart = "basket", item = "nothing", count = 1 } = request.json();
  if (typeof cart !== "string" || typeof item !== "string" || !item) throw badRequest("cart and item are texts");
  if (!Number.isSafeInteger(count) || count < 1 || count > COUNT_MAX) throw badRequest(`count is 1 to ${COUNT_MAX}`);
  return { cart, item, count };
}

/** Changes what stands under an item, which must be there. */
function change(item, how) {
  return open("stock", json).update(item, (known) => {
    if (known === null) throw notFound(`there is no ${item}`);
    return how(known);
  });
}

function contents(cart) {
  const stock = open("stock", json);
  const held = stock.getMany(stock.keys()).map(([item, { held }]) => [item, holds(held, cart)]);
  return Object.fromEntries(held.filter(([, count]) => count > 0));
}

/** How many a cart holds; carts may be called anything, `constructor` too. */
function holds(held, cart) {
  return Object.hasOwn(held, cart) ? held[cart] : 0;
}

function without(held, cart, count) {
  const others = Object.entries(held).filter(([name]) => name !== cart);
  const rest = holds(held, cart) - count;
  return Object.fromEntries(rest > 0 ? [...others, [cart, rest]] : others);
}

const COUNT_MAX = 1_000_000;
