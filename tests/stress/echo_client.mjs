// A client in Node.js that talks to an echo: node echo_client.mjs URL ws|builtin
import assert from "node:assert/strict";

const [url, kind] = process.argv.slice(2);
const Socket = kind === "ws" ? (await import("ws")).WebSocket : globalThis.WebSocket;
assert.ok(Socket, "this Node.js has no WebSocket of its own, not even with --experimental-websocket");

const messages = ["h\u00e9llo \u20ac \u{1f600}", Uint8Array.from({ length: 256 }, (_, i) => i), "", "a".repeat(70000)];
const socket = new Socket(url);
socket.binaryType = "arraybuffer";
const next = () =>
  new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(event.data);
    socket.onerror = (event) => reject(event.error ?? new Error("the socket failed"));
    socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
  });

await new Promise((resolve, reject) => {
  socket.onopen = resolve;
  socket.onerror = (event) => reject(event.error ?? new Error("no socket"));
});
for (const message of messages) {
  const answer = next();
  socket.send(message);
  const got = await answer;
  assert.deepEqual(typeof got === "string" ? got : new Uint8Array(got), message);
}
const closed = new Promise((resolve) => (socket.onclose = resolve));
socket.onerror = null;
socket.close(4001, "done");
const { code, reason, wasClean } = await closed;
assert.deepEqual([code, reason, wasClean], [4001, "done", true]);
console.log("talked");
