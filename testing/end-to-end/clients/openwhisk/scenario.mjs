// Uses a gateway's actions as people do with the `openwhisk` client. Reads {"host", "key", "sealed": [base64 …]} from standard
// input and prints what came of each step as one JSON object. It knows nothing of what is sealed.
import { createRequire } from "node:module";

// Resolved from where the test installed the client.
const openwhisk = createRequire(process.argv[2] + "/")("openwhisk");

let text = "";
for await (const some of process.stdin) text += some;
const { host, key, sealed } = JSON.parse(text);
const ow = openwhisk({ apihost: host, api_key: key, namespace: "_" });

// What a call that must fail says.
async function refused(call) {
  try {
    await call();
  } catch (error) {
    return { status: error.statusCode, body: error.error };
  }
  throw new Error("it did not fail");
}

const action = (limits) => ({ exec: { kind: "blackbox", image: "bield/worker:1" }, limits });
const limits = { timeout: 60000, memory: 256, concurrency: 2 };
const name = "classify";
const said = {};

said.namespaces = await ow.namespaces.list();
said.created = await ow.actions.create({ name, action: action(limits) });
said.again = await refused(() => ow.actions.create({ name, action: action(limits) }));
said.updated = await ow.actions.update({ name, action: action({ ...limits, memory: 512 }) });
said.got = await ow.actions.get({ name });
said.listed = await ow.actions.list();

said.blocking = await ow.actions.invoke({ name, blocking: true, params: { sealed: sealed[0] } });
said.result = await ow.actions.invoke({ name, blocking: true, result: true, params: { sealed: sealed[1] } });
said.begun = await ow.actions.invoke({ name, params: { sealed: sealed[2] } });
for (let tries = 0; ; tries++) {
  try {
    said.polled = await ow.activations.get(said.begun.activationId);
    break;
  } catch (error) {
    if (error.statusCode !== 404 || tries > 600) throw error;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
said.activations = await ow.activations.list({ name });
said.activation_result = await ow.activations.result({ name: said.blocking.activationId });

said.unsealed = await refused(() => ow.actions.invoke({ name, blocking: true, params: { question: "in clear" } }));
said.not_opened = await refused(() => ow.actions.invoke({ name, blocking: true, params: { sealed: sealed[3] } }));
said.too_long = await refused(() => ow.actions.invoke({ name, blocking: true, params: { sealed: "A".repeat(2 << 20) } }));
said.too_much = await refused(() => ow.actions.update({ name, action: action({ concurrency: 1000 }) }));
said.code = await refused(() => ow.actions.create({ name: "code", kind: "nodejs:default", action: "function main() {}" }));
said.unknown = await refused(() => ow.actions.invoke({ name: "unknown", params: { sealed: sealed[0] } }));
const stranger = openwhisk({ apihost: host, api_key: key + "x" });
said.stranger = await refused(() => stranger.actions.list());
const trespasser = openwhisk({ apihost: host, api_key: key, namespace: "lab" });
said.trespasser = await refused(() => trespasser.actions.list());

said.deleted = await ow.actions.delete({ name });
said.gone = await refused(() => ow.actions.get({ name }));
console.log(JSON.stringify(said));
