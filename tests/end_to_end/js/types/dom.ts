/** What a browser's project has beside; compiled with the DOM library. */
import { Hubbub } from "./hubbub.js";

const hub = new Hubbub(new URL("/ws", location.href), { WebSocket, fetch, protocols: [] });
new Hubbub(location);
hub.send(new Blob(["abc"]));
hub.on("message", async (data) => data instanceof Blob && (await data.text()));
const socket: WebSocket | null = hub.socket;
const kind: BinaryType | undefined = hub.socket?.binaryType;
hub.on("error", () => [socket?.bufferedAmount, kind]);
// @ts-expect-error: a string is no WebSocket
const wrong: string = hub.socket;
hub.send(wrong);
