// Many clients in one room: some with the unmodified npm SDK, some with rooms.js. Each writes down the numbers
// that it gets; when all have the last one, they are printed as one JSON array: for each client what it got,
// and how often it recovered.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const [, , base, room, sdkCount, script, roomsCount] = process.argv;
const { Rooms } = await import(script);
const url = `ws://${base}/connection/websocket`;
const clients = [];

function noting(kind) {
  const found = { kind, got: [], recovered: 0, lost: 0, ended: null, isDone: false };
  clients.push(found);
  return found;
}

function take(found, data) {
  if (data === "the end") found.isDone = true;
  else found.got.push(data);
}

async function startSdk(index) {
  const options = { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 200 };
  const sdk = new Centrifuge(url, { ...options, token: `js${index}` });
  const found = noting("npm");
  const subscription = sdk.newSubscription(room);
  sdk.on("disconnected", ({ code }) => (found.ended = code));
  subscription.on("unsubscribed", ({ code }) => (found.ended = code));
  subscription.on("subscribed", ({ wasRecovering, recovered }) => {
    if (wasRecovering) found[recovered ? "recovered" : "lost"] += 1;
  });
  subscription.on("publication", ({ data }) => take(found, data));
  subscription.subscribe();
  sdk.connect();
  await subscription.ready(20000);
}

async function startRooms(index) {
  const options = { WebSocket, minDelayMs: 20, maxDelayMs: 200 };
  const rooms = new Rooms(url, { ...options, token: `rooms${index}` });
  const found = noting("rooms.js");
  const one = rooms.room(room);
  rooms.on("stop", ({ code }) => (found.ended = code));
  one.on("unsubscribed", ({ code }) => (found.ended = code));
  one.on("message", ({ data }) => take(found, data));
  const ready = new Promise((resolve) => {
    one.on("subscribed", ({ wasRecovering, recovered }) => {
      if (wasRecovering) found[recovered ? "recovered" : "lost"] += 1;
      resolve();
    });
  });
  one.subscribe();
  await ready;
}

for (let index = 0; index < Number(sdkCount); index += 1) await startSdk(index);
for (let index = 0; index < Number(roomsCount); index += 1) await startRooms(index);
console.log("ready");
const deadline = Date.now() + 150000;
while (!clients.every((each) => each.isDone || each.ended !== null) && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
process.stdout.write(`${JSON.stringify(clients)}\n`, () => process.exit(0));
