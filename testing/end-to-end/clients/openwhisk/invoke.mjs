// Makes one action and has it answer sealed requests. Reads {"host", "key", "sealed": [base64 …]} from standard input, prints
// {"results": [{"sealed", "kind", "feedback"} …]}.
import { createRequire } from "node:module";

const openwhisk = createRequire(process.argv[2] + "/")("openwhisk");

let text = "";
for await (const some of process.stdin) text += some;
const { host, key, sealed } = JSON.parse(text);
const ow = openwhisk({ apihost: host, api_key: key });

const action = { exec: { kind: "blackbox", image: "bield/worker:1" }, limits: { timeout: 60000, memory: 512 } };
await ow.actions.create({ name: "models", action });
const results = [];
for (const one of sealed) {
  results.push(await ow.actions.invoke({ name: "models", blocking: true, result: true, params: { sealed: one } }));
}
console.log(JSON.stringify({ results }));
