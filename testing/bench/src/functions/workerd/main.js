// workerd's door to a bield function: a request in, what its handler answers out.

import { handler } from "function.js";

export default {
  async fetch(request) {
    const body = new Uint8Array(await request.arrayBuffer());
    const contentType = request.headers.get("content-type") ?? "";
    try {
      const answer = handler.handle({ path: new URL(request.url).pathname, contentType, body, caller: "" });
      return new Response(answer.body, { headers: { "content-type": answer.contentType } });
    } catch (refusal) {
      return new Response(refusal.val ?? String(refusal), { status: 400 });
    }
  },
};
