// Socket.IO for Node.js: rooms and emit(). WebSocket only, no compression, and the HTTP request is
// let go of after the handshake, as its page on memory usage advises.
// Run:  node socketio_server.mjs PORT
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

io.on("connection", (socket) => {
  const { room, mode } = socket.handshake.query;
  socket.conn.request = null;
  if (room !== undefined) socket.join(room);
  socket.on("m", (data) => {
    if (mode !== undefined) socket.emit("m", data);
    else if (room !== undefined) io.to(room).emit("m", data);
    else io.emit("m", data);
  });
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
