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
  const [rooms, seen] = await served(t, ({ connect }) => connect && ping, { maxPingDelayMs: 900 });
  await next(rooms, "open");
  for (let n = 0; n < 4; n += 1) {
    seen.sockets[0].send("{}"); // the next as soon as the one before is answered
    await new Promise((resolve) => seen.sockets[0].once("message", resolve));
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

const gives = (room, subscribe) => ({ push: { channel: room, subscribe } });
const at = (offset, more) => ({ recoverable: true, epoch: "e", offset, ...more });
const pubs = (...offsets) => offsets.map((offset) => ({ data: offset, offset }));

/** Note what becomes of a room, as [event, what a test looks at]. */
function noted(room, events = []) {
  room.on("subscribed", ({ position }) => events.push(["subscribed", position?.offset ?? null]));
  room.on("message", ({ data }) => events.push(["message", data]));
  room.on("gap", ({ position }) => events.push(["gap", position?.offset ?? null]));
  room.on("unsubscribed", ({ code }) => events.push(["unsubscribed", code]));
  room.on("error", ({ code }) => events.push(["error", code]));
  return events;
}

test("a room that is given by a push says whether anything was missed", async (t) => {
  const told = [
    at(3, { epoch: "e~1" }),
    at(3, { epoch: "e~1~2" }), // who the client was is no other history
    at(9, { epoch: "e~3" }),
    at(9, { epoch: "f" }),
    {},
  ];
  const answer = ({ connect }, send, number) => {
    if (connect) setImmediate(() => send(gives("a", told[number - 1])));
    return connect && connected;
  };
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a");
  const events = noted(room);
  await next(room, "subscribed");
  for (const _ of told.slice(1)) {
    seen.sockets.at(-1).terminate();
    await next(room, "subscribed");
  }
  assert.deepEqual(seen.commands.at(-1).connect.subs, { a: { recover: true, offset: 9, epoch: "f" } });
  assert.deepEqual(events, [
    ["subscribed", 3],
    ["subscribed", 3],
    ["subscribed", 9],
    ["gap", 9],
    ["subscribed", 9],
    ["gap", 9],
    ["subscribed", null],
    ["gap", null],
  ]);
});

test("a room that a page asks for from a position, and the server gives first", async (t) => {
  let asked = 0;
  const answer = ({ connect, subscribe, unsubscribe }, send) => {
    if (connect) return connected;
    if (unsubscribe) return { unsubscribe: {} };
    if (!subscribe) return null;
    if (asked++) return { subscribe: at(3, { recovered: true, was_recovering: true, publications: pubs(4, 5) }) };
    send(gives("a", at(5)));
    return { error: { code: 105, message: "already subscribed" } };
  };
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a", { since: { offset: 3, epoch: "e" } });
  const events = noted(room);
  room.subscribe();
  while (events.length < 3) await next(room, "message");
  assert.deepEqual(events, [["subscribed", 3], ["message", 4], ["message", 5]]);
  const request = { channel: "a", recover: true, offset: 3, epoch: "e" };
  assert.deepEqual(seen.commands.slice(1).map(({ id, ...command }) => command), [
    { subscribe: request },
    { unsubscribe: { channel: "a" } },
    { subscribe: request },
  ]);
});

test("a room that is not given again", async (t) => {
  const answer = ({ connect, subscribe, history }, send, number) => {
    if (connect && number === 1) return { connect: { client: "c1", subs: { a: at(3), b: at(3), c: at(3) } } };
    if (connect) return connected;
    if (history?.channel === "c") send(gives("c", at(3, { recovered: true, publications: pubs(4) })));
    if (history) return { error: { code: 108, message: "not available" } };
    return subscribe && { subscribe: at(3, { recovered: true }) };
  };
  const [rooms, seen] = await served(t, answer);
  const events = {};
  for (const name of "abc") events[name] = noted(rooms.room(name));
  await next(rooms, "open");
  rooms.room("b").subscribe(); // the page wants it: it asks for it itself
  seen.sockets[0].terminate();
  await next(rooms.room("b"), "subscribed");
  assert.deepEqual(events, {
    a: [["subscribed", 3], ["unsubscribed", 2000]],
    b: [["subscribed", 3], ["subscribed", 3]],
    c: [["subscribed", 3], ["subscribed", 3], ["message", 4]],
  });
  const asked = seen.commands.filter(({ subscribe }) => subscribe).map(({ subscribe }) => subscribe);
  assert.deepEqual(asked, [{ channel: "b", recover: true, offset: 3, epoch: "e" }]);
});

test("after an end a token is asked for again, and a late one is passed over", async (t) => {
  const refused = { error: { code: 101, message: "not you" } };
  const answer = ({ connect }) => connect && (connect.token.startsWith("ann") ? refused : connected);
  const waiting = [];
  const getToken = () => new Promise((resolve) => waiting.push(resolve));
  const [rooms, seen] = await served(t, answer, { token: "ann", getToken });
  await next(rooms, "stop");
  rooms.connect(); // asks for ann's token
  rooms.close(4501, "signed out");
  rooms.connect(); // asks for bob's
  while (waiting.length < 2) await sleep(0);
  waiting[1]("bob");
  await next(rooms, "open");
  waiting[0]("ann again");
  await sleep(0);
  seen.sockets.at(-1).terminate();
  await next(rooms, "open");
  assert.deepEqual(seen.commands.map(({ connect }) => connect.token), ["ann", "bob", "bob"]);
});

test("nothing is told after an end that a listener has caused", async (t) => {
  for (const where of ["state", "open", "room", "subscribed", "message"]) {
    const missed = at(0, { recovered: true, publications: pubs(1, 2) });
    const subs = { a: missed, b: missed };
    const [rooms] = await served(t, ({ connect }) => connect && { connect: { client: "c1", subs } });
    const told = [];
    const hear = (target, event) =>
      target.on(event, () => {
        if (event === "state" && target.state !== "open") return;
        told.push(event);
        if (event === where) rooms.close();
      });
    for (const event of ["state", "open"]) hear(rooms, event);
    rooms.on("room", (room) => {
      for (const event of ["subscribed", "message"]) hear(room, event);
    });
    hear(rooms, "room");
    await next(rooms, "stop");
    const all = ["state", "open", "room", "subscribed", "message"];
    assert.deepEqual(told, all.slice(0, all.indexOf(where) + 1));
  }
});

test("positions and a token that are worth nothing any more", async (t) => {
  let asked = 0;
  const [rooms, seen] = await served(
    t,
    ({ connect, subscribe }) => (connect ? connected : subscribe && { subscribe: at(3) }),
    { getToken: () => `token ${++asked}` },
  );
  const room = rooms.room("a");
  const events = noted(room);
  room.subscribe();
  await next(room, "subscribed");
  seen.sockets[0].send(JSON.stringify({ push: { channel: "a", unsubscribe: { code: 2502, reason: "state" } } }));
  await next(room, "gap");
  seen.sockets[0].close(3014, "state invalidated");
  await next(room, "gap");
  assert.deepEqual(events, [
    ["subscribed", 3],
    ["subscribed", 3],
    ["gap", 3],
    ["subscribed", 3],
    ["gap", 3],
  ]);
  const tokens = seen.commands.filter(({ connect }) => connect).map(({ connect }) => connect.token);
  assert.deepEqual(tokens, ["token 1", "token 2"]);
});

test("a room that was refused for now and is given is not asked for again", async (t) => {
  const later = { error: { code: 100, message: "later", temporary: true } };
  const answer = ({ connect, subscribe, rpc }, send) => {
    if (rpc) send(gives("a", {}));
    return connect ? connected : subscribe ? later : { rpc: { data: 1 } };
  };
  const [rooms, seen] = await served(t, answer, { fixedDelayMs: 60 });
  const room = rooms.room("a");
  const events = noted(room);
  room.subscribe();
  await next(room, "error");
  await rooms.call("give");
  await sleep(120);
  assert.deepEqual(events, [["error", 100], ["subscribed", null]]);
  assert.equal(seen.commands.filter(({ subscribe }) => subscribe).length, 1);
});

test("a server that sends the connect command back has no rooms", async (t) => {
  const [rooms, seen] = await served(t, ({ connect }) => ({ connect }), { token: "secret" });
  const [stop] = await next(rooms, "stop");
  assert.equal(stop.code, 1002);
  assert.equal(stop.reason, "not a route for rooms");
  assert.equal(rooms.client, "");
  assert.equal(seen.commands.length, 1);
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

test("half a position, or one of other types, is an error where it is given", async () => {
  const rooms = new Rooms("ws://127.0.0.1:1/", { WebSocket, autoConnect: false });
  const WRONG = [
    { offset: 5 },
    { epoch: "e" },
    { ofset: 5, epoch: "e" },
    { offset: "5", epoch: "e" },
    { offset: 1.5, epoch: "e" },
    { offset: 1e300, epoch: "e" },
    { offset: -1, epoch: "e" },
    { offset: null, epoch: "e" },
    { offset: 5, epoch: 7 },
    [5, "e"],
    '{"offset": 5, "epoch": "e"}',
    5,
    true,
  ];
  for (const since of WRONG) {
    const wrong = { name: "TypeError", message: "wrong since" };
    assert.throws(() => rooms.room("a", { since }), wrong, JSON.stringify(since));
    await assert.rejects(rooms.room("a").history({ since }), wrong, JSON.stringify(since));
  }
  assert.equal(rooms.room("a").position, null);
  for (const since of [null, undefined, {}, { offset: 0, epoch: "" }, { offset: 5, epoch: "e" }])
    assert.equal(rooms.room(`${JSON.stringify(since)}`, { since }).position, since ?? null);
});

test("an answer after the server has taken the client out is undone", async (t) => {
  const answer = ({ id, connect, subscribe, unsubscribe }, send) => {
    if (subscribe) {
      for (let times = 0; times < 2; times++) {
        send({ push: { channel: "a", subscribe: {} } });
        send({ push: { channel: "a", unsubscribe: { code: 2000, reason: "out" } } });
      }
      send({ id, subscribe: {} });
    }
    return (connect && connected) || (unsubscribe && { unsubscribe: {} });
  };
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a");
  room.subscribe();
  await next(room, "unsubscribed");
  await sleep(100);
  assert.equal(room.state, "unsubscribed");
  assert.deepEqual(seen.commands.at(-1).unsubscribe, { channel: "a" });
  assert.equal(seen.commands.filter((each) => each.unsubscribe).length, 1);
});

test("a late answer takes nobody out of a room that the server has given again", async (t) => {
  const answer = ({ id, connect, subscribe, unsubscribe }, send) => {
    if (subscribe) {
      send({ push: { channel: "a", subscribe: {} } });
      send({ push: { channel: "a", unsubscribe: { code: 2000, reason: "out" } } });
      send({ push: { channel: "a", subscribe: {} } });
      send({ id, subscribe: {} });
    }
    return (connect && connected) || (unsubscribe && { unsubscribe: {} });
  };
  const [rooms, seen] = await served(t, answer);
  const room = rooms.room("a");
  room.subscribe();
  await next(room, "unsubscribed");
  await sleep(100);
  assert.equal(room.state, "subscribed");
  assert.deepEqual(seen.commands.filter((each) => each.unsubscribe), []);
});
