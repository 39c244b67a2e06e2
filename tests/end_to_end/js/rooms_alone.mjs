// rooms.js against servers that do what a hub rarely does. Run by test_rooms_js.py with node --test.
import assert from "node:assert/strict";
import test from "node:test";
import WebSocket, { WebSocketServer } from "ws";
import { Rooms, RoomsError } from "../../../src/hubbub/static/rooms.js";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Serve; `answer(command, send, number)` says what to answer on the n-th connection. */
async function served(t, answer, options = {}) {
  const server = new WebSocketServer({ port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));
  const seen = { commands: [], sockets: [] };
  server.on("connection", (socket) => {
    const number = seen.sockets.push(socket);
    const send = (value) => socket.send(JSON.stringify(value));
    socket.on("message", (data) => {
      for (const line of data.toString().split("\n")) {
        const command = JSON.parse(line);
        seen.commands.push(command);
        const reply = answer(command, send, number);
        if (reply) send({ id: command.id, ...reply });
      }
    });
  });
  const rooms = new Rooms(`ws://127.0.0.1:${server.address().port}`, {
    WebSocket,
    fetch: null,
    fixedDelayMs: 10,
    ...options,
  });
  t.after(() => {
    rooms.close();
    server.close();
    for (const client of server.clients) client.terminate();
  });
  return [rooms, seen];
}

const connected = { connect: { client: "c1" } };
const next = (target, event) =>
  new Promise((resolve) => {
    const off = target.on(event, (...details) => (off(), resolve(details)));
  });

test("a server that pings no more is left, and pings are answered", async (t) => {
  const ping = { connect: { client: "c1", ping: 0.1, pong: true } };
  const [rooms, seen] = await served(t, ({ connect }) => connect && ping, { maxPingDelayMs: 100 });
  await next(rooms, "open");
  for (let n = 0; n < 4; n += 1) {
    seen.sockets[0].send("{}");
    await sleep(100);
  }
  assert.equal(rooms.state, "open");
  assert.equal(seen.commands.filter((each) => !Object.keys(each).length).length, 4);
  const [close] = await next(rooms, "close");
  assert.deepEqual(close, { code: 1006, reason: "no ping", opened: true, comesBack: true });
  await next(rooms, "open");
  assert.equal(seen.sockets.length, 2);
});

test("a connect command without an answer", async (t) => {
  const silentOnce = ({ connect }, _, number) => (connect && number > 1 ? connected : null);
  const [rooms] = await served(t, silentOnce, { timeoutMs: 50 });
  const [close] = await next(rooms, "close");
  assert.deepEqual(close, { code: 1006, reason: "no answer", opened: false, comesBack: true });
  await next(rooms, "open");
});

test("a subscribe command without an answer", async (t) => {
  const answer = ({ connect, subscribe }, _, number) =>
    connect ? connected : subscribe && number > 1 ? { subscribe: {} } : null;
  const [rooms] = await served(t, answer, { timeoutMs: 50 });
  const room = rooms.room("a");
  room.subscribe();
  await next(room, "subscribed");
  assert.equal(rooms.state, "open");
});

test("a subscription that is refused for now is asked for again", async (t) => {
  let refused = 0;
  const later = { error: { code: 100, message: "later", temporary: true } };
  const answer = ({ connect, subscribe }) =>
    connect ? connected : subscribe && (refused++ < 2 ? later : { subscribe: {} });
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a");
  const errors = [];
  room.on("error", (error) => errors.push([error instanceof RoomsError, error.code]));
  room.subscribe();
  await next(room, "subscribed");
  assert.deepEqual(errors, [[true, 100], [true, 100]]);
  assert.equal(seen.sockets.length, 1);
});

test("commands: no answer, a lost connection, an end", async (t) => {
  const [rooms, seen] = await served(t, ({ connect }) => connect && connected, { timeoutMs: 200 });
  const failed = (promise) => promise.then(assert.fail, ({ code }) => code);
  await next(rooms, "open");
  assert.equal(await failed(rooms.call("silence")), 1);
  const cut = failed(rooms.call("cut"));
  await sleep(20);
  seen.sockets[0].terminate();
  assert.equal(await cut, 2);
  await next(rooms, "open");
  const closed = failed(rooms.call("end"));
  rooms.close();
  assert.equal(await closed, 2, "it had been sent");
  assert.equal(await failed(rooms.call("late")), 3);
});

test("commands wait for a connection, but not too many and not for ever", async (t) => {
  const answer = ({ connect, rpc }) => (connect ? connected : rpc && { rpc: { data: rpc.data } });
  const options = { autoConnect: false, maxQueue: 2, timeoutMs: 60 };
  const [rooms] = await served(t, answer, options);
  const first = [rooms.call("a", 1), rooms.call("a", 2), rooms.call("a", 3)];
  const ended = await Promise.allSettled(first);
  assert.deepEqual(ended.map(({ reason }) => reason.code), [1, 1, 4]);
  const data = { n: 1 };
  const waiting = rooms.call("a", data);
  data.n = 2; // what is sent is as it was
  assert.equal(rooms.send("no"), false);
  rooms.connect();
  assert.deepEqual(await waiting, { n: 1 });
});

test("a long life of a token is no short one", async (t) => {
  let asked = 0;
  const forever = { connect: { client: "c1", expires: true, ttl: 2 ** 31 } };
  const getToken = () => `token ${++asked}`;
  const [rooms] = await served(t, ({ connect }) => connect && forever, { getToken });
  await next(rooms, "open");
  await sleep(100);
  assert.equal(asked, 1);
});

test("a new token is asked for again when it is refused for now", { timeout: 20000 }, async (t) => {
  let asked = 0;
  const soon = { client: "c1", expires: true, ttl: 1 };
  const answer = ({ connect, refresh }) =>
    connect
      ? { connect: soon }
      : refresh.token === "token 2"
        ? { error: { code: 109, message: "expired" } }
        : { error: { code: 101, message: "not you" } };
  const [rooms, seen] = await served(t, answer, { getToken: () => `token ${++asked}` });
  const [stop] = await next(rooms, "stop");
  assert.deepEqual(stop, { code: 101, reason: "not you", body: null });
  assert.deepEqual(rooms.stopped, stop);
  assert.equal(asked, 3);
  assert.equal(seen.sockets.length, 1);
});

test("a room that is left before the connection stands is not kept by the server", async (t) => {
  const answer = (command) => {
    const [method] = Object.keys(command).filter((name) => name !== "id");
    return { [method]: method === "connect" ? connected.connect : {} };
  };
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a");
  room.subscribe();
  while (!seen.commands.length) await sleep(0);
  room.unsubscribe();
  await sleep(50);
  assert.deepEqual(seen.commands.map((each) => Object.keys(each)[1]), ["connect", "subscribe", "unsubscribe"]);
  assert.equal(room.state, "unsubscribed");
});

test("a room that is left at the end of a connection does not end the next", async (t) => {
  const answer = ({ connect, subscribe }) => (connect ? connected : subscribe && { subscribe: {} });
  const [rooms, seen] = await served(t, answer, { timeoutMs: 50 });
  const room = rooms.room("a");
  room.subscribe();
  await next(room, "subscribed");
  room.unsubscribe(); // what says so waits for the turn's end
  rooms.cut();
  await next(rooms, "open");
  await sleep(100);
  assert.equal(seen.sockets.length, 2);
});

test("wrong arguments throw at construction", () => {
  const ws = "ws://127.0.0.1:1/";
  const WRONG = [
    ["ftp://a", {}],
    ["ftp://a", { getToken: () => "a" }],
    [ws, { timeoutMs: -1 }],
    [ws, { maxQueue: "x" }],
    [ws, { tokens: "a" }],
  ];
  for (const [url, options] of WRONG)
    assert.throws(() => new Rooms(url, { WebSocket, ...options }).close(), TypeError);
  const rooms = new Rooms(ws, { WebSocket, autoConnect: false });
  assert.throws(() => rooms.on("mesage", () => {}), TypeError);
  assert.throws(() => rooms.room("a").on("toString", () => {}), TypeError);
});
