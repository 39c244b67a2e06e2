// One scenario with rooms.js in Node. Prints what happened, as one JSON array of events.
import WebSocket from "ws";

import { Rooms } from "../../../src/hubbub/static/rooms.js";
import { play } from "./rooms.mjs";

const [, , base, name] = process.argv;

play(name, Rooms, WebSocket, base).then(
  (events) => {
    console.log(JSON.stringify(events));
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
