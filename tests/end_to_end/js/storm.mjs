// Many clients with the unmodified npm SDK in one room. Each writes down the numbers that it gets; when all
// have the last one, they are printed as one JSON array: for each client what it got, and how often it recovered.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const [, , base, count, room] = process.argv;
const clients = [];
for (let index = 0; index < Number(count); index += 1) {
  const sdk = new Centrifuge(`ws://${base}/connection/websocket`, {
    websocket: WebSocket,
    token: `js${index}`,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
  });
  const found = { got: [], recovered: 0, lost: 0, ended: null, isDone: false };
  clients.push(found);
  const subscription = sdk.newSubscription(room);
  sdk.on("disconnected", ({ code }) => (found.ended = code));
  subscription.on("unsubscribed", ({ code }) => (found.ended = code));
  subscription.on("subscribed", ({ wasRecovering, recovered }) => {
    if (wasRecovering) found[recovered ? "recovered" : "lost"] += 1;
  });
  subscription.on("publication", ({ data }) => {
    if (data === "the end") found.isDone = true;
    else found.got.push(data);
  });
  subscription.subscribe();
  sdk.connect();
  await subscription.ready(20000);
}
console.log("ready");
const deadline = Date.now() + 150000;
while (!clients.every((each) => each.isDone || each.ended !== null) && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
process.stdout.write(`${JSON.stringify(clients)}\n`, () => process.exit(0));
