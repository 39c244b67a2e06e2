// Clients of hubbub.js that reconnect: prints a JSON line for each time one opens or is closed.
// Started by fault_end.py: node reconnect.mjs HUBBUB_JS WS_MODULE URL COUNT
import { pathToFileURL } from "node:url";

const [script, socketModule, url, count] = process.argv.slice(2);
const { Hubbub } = await import(pathToFileURL(script));
const { default: WebSocket } = await import(pathToFileURL(socketModule));

const say = (event) => console.log(JSON.stringify({ ...event, at: Date.now() / 1000 }));
const hubs = [];
for (let number = 0; number < Number(count); number++) {
  const hub = new Hubbub(url, { WebSocket });
  hub.on("open", () => say({ open: number }));
  hub.on("close", (event) => say({ close: number, code: event.code }));
  hubs.push(hub);
}
process.stdin.on("end", () => {
  for (const hub of hubs) hub.close();
  process.exit(0);
});
process.stdin.resume();
