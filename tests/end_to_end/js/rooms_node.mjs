// One scenario with rooms.js in Node.
import WebSocket from "ws";

import { Rooms } from "../../../src/hubbub/static/rooms.js";
import { play } from "./rooms.mjs";
import { print } from "./playing.mjs";

const [, , base, name] = process.argv;

print(play(name, Rooms, WebSocket, base));
