// `ws` for Node.js: a set of sockets and send() for each, as its README has it.
// Run:  node ws_server.mjs PORT
import { WebSocket, WebSocketServer } from "ws";

const groups = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  perMessageDeflate: false,
});

function groupOf(name) {
  if (!groups.has(name)) groups.set(name, new Set());
  return groups.get(name);
}

server.on("connection", (socket, request) => {
  const query = new URL(request.url, "http://localhost").searchParams;
  const isEcho = query.has("mode");
  const group = groupOf(query.get("room") ?? "");
  group.add(socket);
  socket.on("error", () => {});
  socket.on("close", () => group.delete(socket));
  socket.on("message", (data, isBinary) => {
    if (isEcho) {
      socket.send(data, { binary: isBinary });
      return;
    }
    for (const other of group) {
      if (other.readyState === WebSocket.OPEN) other.send(data, { binary: isBinary });
    }
  });
});
