// One scenario in Node.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { play } from "./centrifuge.mjs";
import { print } from "./playing.mjs";

const [, , base, name] = process.argv;

print(play(name, Centrifuge, WebSocket, base));
