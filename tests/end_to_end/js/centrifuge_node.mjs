// One scenario in Node. Prints what happened, as one JSON array of events.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { play } from "./centrifuge.mjs";

const [, , base, name] = process.argv;

play(name, Centrifuge, WebSocket, base).then(
  (events) => {
    console.log(JSON.stringify(events));
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
