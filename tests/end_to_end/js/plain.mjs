// Some clients with hubbub.js, or with rooms.js, at one address. When each was closed and has heard a message after that (or with
// "delay": when each waits to come back), what they were closed with is printed as one JSON array: the code, and
// the delay.
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [, , script, url, count, until] = process.argv;
const asText = () => `data:text/javascript,${encodeURIComponent(readFileSync(script, "utf8"))}`;
const module = await import(script.endsWith("rooms.js") ? script : asText());
const Client = module.Rooms ?? module.Hubbub;
const closes = [];
const clients = Array.from({ length: Number(count) }, () => {
  const hub = new Client(url, { WebSocket });
  const found = { hub, isDone: false };
  hub.on("close", ({ code, opened }) => opened && closes.push([code, hub.delayMs]));
  hub.on("message", () => (found.isDone = true));
  hub.on("state", (state) => {
    if (state === "waiting" && until === "delay") found.isDone = true;
  });
  return found;
});

const all = async (condition) => {
  while (!clients.every(condition)) await new Promise((resolve) => setTimeout(resolve, 10));
};

await all(({ hub }) => hub.state === "open");
console.log("ready");
await all(({ isDone }) => isDone);
process.stdout.write(`${JSON.stringify(closes)}\n`, () => process.exit(0));
