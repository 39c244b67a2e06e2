/** What a Node project has beside; compiled with @types/node and without the DOM library. */
import { Hubbub } from "./hubbub.js";

const hub = new Hubbub(new URL("ws://localhost:8080/ws"), { WebSocket, fetch });
hub.send(Buffer.from("abc"));
hub.send(new Blob(["abc"]));
hub.on("message", (data) => (data instanceof ArrayBuffer ? Buffer.from(data) : data));
const held: number | undefined = hub.socket?.bufferedAmount;
process.once("SIGINT", () => hub.close(held ? 4000 : 1000));
