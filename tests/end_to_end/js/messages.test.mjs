/** Messages: what is sent, what waits, what is lost, what arrives. */
import assert from "node:assert/strict";
import { File } from "node:buffer";
import { runInNewContext } from "node:vm";

import { check, Hubbub, record, settle } from "./fakes.mjs";

const URL_ = "ws://hub.test/ws";

const opened = (world, more) => {
  const hub = new Hubbub(URL_, world.options(more));
  world.socket.open();
  return hub;
};

check("text and binary go as they are, the rest as JSON", async (world) => {
  const hub = opened(world);
  const binary = [new ArrayBuffer(2), new Uint8Array(3), new DataView(new ArrayBuffer(4))];
  const blob = new Blob(["abc"]);
  for (const data of ["text", "", ...binary, blob]) assert.equal(hub.send(data), true);
  for (const data of [{ type: "say" }, [1, 2], 7, true, null]) assert.equal(hub.send(data), true);
  assert.deepEqual(world.socket.sent, [
    "text", "", ...[2, 3, 4].map((size) => new Uint8Array(size)), blob,
    '{"type":"say"}', "[1,2]", "7", "true", "null",
  ]);
});

check("what JSON has no form of is a TypeError, connected or not", async (world) => {
  const hub = opened(world);
  for (const data of [undefined, () => 1, Symbol("x")])
    assert.throws(() => hub.send(data), TypeError);
  hub.close();
  assert.throws(() => hub.send(undefined), TypeError);
  assert.deepEqual(world.socket.sent, []);
});

check("messages wait while there is no connection and go in order", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  assert.equal(hub.send("1"), true);
  assert.equal(hub.send({ n: 2 }), true);
  assert.equal(hub.queued, 2);
  world.socket.open();
  hub.send("3");
  assert.deepEqual(world.socket.sent, ["1", '{"n":2}', "3"]);
  assert.equal(hub.queued, 0);
  world.socket.end();
  hub.send("4");
  await world.clock.advance(1000);
  hub.send("5");
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["4", "5"]);
});

check("what a listener of open sends goes before the queue", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.on("open", () => hub.send("join"));
  hub.send("said while away");
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["join", "said while away"]);
});

check("a socket that is closing takes nothing: the message waits", async (world) => {
  const hub = opened(world);
  const first = world.socket;
  first.readyState = 2;
  assert.equal(hub.state, "open");
  assert.equal(hub.send("kept"), true);
  first.end(1012);
  await world.clock.advance(1000);
  world.socket.open();
  assert.deepEqual(first.sent, []);
  assert.deepEqual(world.socket.sent, ["kept"]);
});

check("a connection that ends during the flush keeps the rest", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.send("1");
  hub.send("2");
  const { socket } = world;
  socket.send = (data) => (socket.sent.push(data), (socket.readyState = 2));
  socket.open();
  assert.equal(hub.queued, 1);
  socket.end();
  await world.clock.advance(1000);
  world.socket.open();
  assert.deepEqual([socket.sent, world.socket.sent], [["1"], ["2"]]);
});

check("cut() in a listener of open keeps the queue", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.send("1");
  const off = hub.on("open", () => hub.cut());
  world.socket.open();
  assert.equal(hub.queued, 1);
  off();
  await world.clock.advance(1000);
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["1"]);
});

check("over maxQueue the oldest are dropped, and said so", async (world) => {
  const hub = new Hubbub(URL_, world.options({ maxQueue: 3 }));
  const log = record(hub, "drop");
  for (let n = 1; n <= 5; n++) assert.equal(hub.send(`${n}`), true);
  assert.deepEqual(log, [["drop", 1], ["drop", 1]]);
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["3", "4", "5"]);
});

check("the queue holds 100 messages by default", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const log = record(hub, "drop");
  for (let n = 0; n < 100; n++) hub.send("x");
  assert.deepEqual([hub.queued, log], [100, []]);
  hub.send("x");
  assert.deepEqual([hub.queued, log], [100, [["drop", 1]]]);
});

check("over maxQueueBytes the oldest are dropped, in UTF-8 bytes", async (world) => {
  const hub = new Hubbub(URL_, world.options({ maxQueueBytes: 10 }));
  const log = record(hub, "drop");
  for (const text of ["aa", "bb", "éé"]) hub.send(text);
  assert.deepEqual([hub.queued, log], [3, []]);
  hub.send(new Uint8Array(6));
  assert.deepEqual([hub.queued, log], [2, [["drop", 2]]]);
  assert.equal(hub.send("x".repeat(11)), false);
  assert.equal(hub.queued, 2);
  hub.send(new Blob(["12345678"]));
  assert.deepEqual([hub.queued, log], [1, [["drop", 2], ["drop", 2]]]);
});

check("the bytes of what was sent no longer count", async (world) => {
  const hub = new Hubbub(URL_, world.options({ maxQueueBytes: 10 }));
  const log = record(hub, "drop");
  for (let round = 0; round < 5; round++) {
    hub.send("12345678");
    world.socket.open();
    world.socket.end();
    await world.clock.advance(hub.delayMs);
  }
  assert.deepEqual(log, []);
});

check("maxQueue 0 queues nothing and send says so", async (world) => {
  const hub = new Hubbub(URL_, world.options({ maxQueue: 0 }));
  const log = record(hub, "drop");
  assert.equal(hub.send("x"), false);
  world.socket.open();
  assert.equal(hub.send("y"), true);
  assert.deepEqual([world.socket.sent, log], [["y"], []]);
});

check("a buffer may be used again while its message waits", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const whole = Uint8Array.of(9, 1, 2, 9);
  hub.send(whole.subarray(1, 3));
  hub.send(Buffer.from(whole.buffer, 1, 2));
  hub.send(new DataView(whole.buffer, 1, 2));
  hub.send(whole.buffer);
  whole.fill(0);
  world.socket.open();
  const bytes = world.socket.sent.map((data) => [...new Uint8Array(data)]);
  assert.deepEqual(bytes, [[1, 2], [1, 2], [1, 2], [9, 1, 2, 9]]);
});

check("what waits at the end for good is counted as dropped", async (world) => {
  const hub = opened(world);
  const log = record(hub, "close", "drop", "state", "stop");
  world.socket.readyState = 2;
  hub.send("1");
  hub.send("2");
  world.socket.end(3503);
  assert.deepEqual(log.map(([name]) => name), ["close", "drop", "state", "stop"]);
  assert.deepEqual(log[1], ["drop", 2]);
  assert.equal(hub.queued, 0);
  assert.equal(hub.send("3"), false);
});

check("a message arrives as it came", async (world) => {
  const hub = opened(world);
  const log = record(hub, "message");
  const bytes = new ArrayBuffer(3);
  for (const data of ["hi", '{"type":"say"}', bytes]) world.socket.receive(data);
  assert.deepEqual(log, [["message", "hi"], ["message", '{"type":"say"}'], ["message", bytes]]);
  assert.equal(world.socket.binaryType, "arraybuffer");
});

check("JSON objects and arrays also arrive parsed", async (world) => {
  const hub = opened(world);
  const log = record(hub, "message", "json");
  for (const text of ['{"a":1}', " [1]", '"text"', "7", "null", "{broken", "[x"])
    world.socket.receive(text);
  world.socket.receive(new TextEncoder().encode("{}").buffer);
  const json = log.filter(([name]) => name === "json");
  assert.deepEqual(json, [["json", { a: 1 }, '{"a":1}'], ["json", [1], " [1]"]]);
  assert.equal(log.length, 8 + 2);
});

check("onType gets the objects of one type", async (world) => {
  const hub = opened(world);
  const says = [];
  const off = hub.onType("say", (message) => says.push(message.text));
  const other = [];
  hub.onType("undefined", (message) => other.push(message));
  world.socket.receive('{"type":"say","text":"a"}');
  for (const text of ['{"type":"go"}', "{}", '{"type":7}', "[]", "say"]) world.socket.receive(text);
  off();
  world.socket.receive('{"type":"say","text":"b"}');
  assert.deepEqual([says, other], [["a"], []]);
});

check("text is parsed only for those who ask", async (world) => {
  const hub = opened(world);
  const log = record(hub, "message");
  let parsed = 0;
  const { parse } = JSON;
  JSON.parse = (text) => (parsed++, parse(text));
  try {
    world.socket.receive("{}");
    assert.equal(parsed, 0);
    hub.onType("a", () => {});
    hub.on("json", () => {});
    world.socket.receive("{}");
    assert.equal(parsed, 1);
  } finally {
    JSON.parse = parse;
  }
  assert.equal(log.length, 2);
});

check("binaryType is the caller's", async (world) => {
  opened(world, { binaryType: "blob" });
  assert.equal(world.socket.binaryType, "blob");
});

check("a listener can go, also while it is called", async (world) => {
  const hub = opened(world);
  const log = [];
  const off = hub.on("message", (data) => {
    log.push(data);
    off();
  });
  hub.on("message", () => log.push("other"));
  world.socket.receive("1");
  world.socket.receive("2");
  assert.deepEqual(log, ["1", "other", "other"]);
});

check("a listener that came while an event is told hears the next one", async (world) => {
  const hub = opened(world);
  const log = [];
  const off = hub.on("message", () => {
    off();
    hub.on("message", (data) => log.push(data));
  });
  world.socket.receive("1");
  world.socket.receive("2");
  assert.deepEqual(log, ["2"]);
});

check("an event that does not exist is a TypeError", async (world) => {
  const hub = opened(world);
  assert.throws(() => hub.on("mesage", () => {}), /no event "mesage": state,open,message/);
});

check("a listener that throws disturbs nobody, and is not hidden", async (world) => {
  const hub = opened(world);
  const uncaught = [];
  world.define("queueMicrotask", (task) => {
    try {
      task();
    } catch (error) {
      uncaught.push(error.message);
    }
  });
  hub.on("message", () => {
    throw new Error("mine");
  });
  const log = record(hub, "message");
  world.socket.receive("1");
  world.socket.receive("2");
  await settle();
  assert.deepEqual(log, [["message", "1"], ["message", "2"]]);
  assert.deepEqual(uncaught, ["mine", "mine"]);
});

check("test_fault_26_binary_of_another_realm_and_shared_memory_go_as_bytes", async (world) => {
  const foreign = runInNewContext(`({
    buffer: Uint8Array.of(1, 2).buffer,
    view: Uint8Array.of(0, 3, 4, 0).subarray(1, 3),
    shared: new SharedArrayBuffer(2),
  })`);
  const shared = new Uint8Array(new SharedArrayBuffer(3)).fill(5);
  const messages = [foreign.buffer, foreign.view, foreign.shared, shared.buffer, shared.subarray(1)];
  const wanted = [[1, 2], [3, 4], [0, 0], [5, 5, 5], [5, 5]].map((it) => Uint8Array.from(it));
  const hub = opened(world);
  for (const data of messages) hub.send(data);
  assert.deepEqual(world.socket.sent, wanted);
  for (const { buffer } of world.socket.sent) assert.ok(buffer instanceof ArrayBuffer);
  world.socket.readyState = 2;
  for (const data of messages) hub.send(data);
  world.socket.end();
  await world.clock.advance(1000);
  shared.fill(9);
  world.socket.open();
  assert.deepEqual(world.socket.sent, wanted);
});

check("test_fault_26_a_Blob_of_another_realm_goes_as_it_is", async (world) => {
  // Node has one realm for Blobs: this one is no instance of the global one, as a frame's is not.
  const { Blob } = globalThis;
  const hub = opened(world);
  const blobs = [new Blob(["abc"]), new File(["def"], "f")];
  world.define("Blob", class extends Blob {});
  for (const blob of blobs) assert.equal(hub.send(blob), true);
  assert.deepEqual(world.socket.sent, blobs);
});

check("what JSON would empty is a TypeError, not {}", async (world) => {
  const hub = opened(world);
  const emptied = [
    new Map([[1, 2]]), new Set([1]), Promise.resolve(1), new Error("x"), /x/, new WeakMap(),
    new URLSearchParams("a=b"), new FormData(), new Response("x"), new Headers(),
  ];
  for (const data of emptied) assert.throws(() => hub.send(data), TypeError, `${data}`);
  class Point {
    x = 1;
  }
  const plain = [{}, Object.create(null), new Point(), new Date(0), new URL("ws://a/"), Object("s")];
  for (const data of plain) hub.send(data);
  assert.deepEqual(world.socket.sent, [
    "{}", "{}", '{"x":1}', '"1970-01-01T00:00:00.000Z"', '"ws://a/"', '"s"',
  ]);
});

check("test_fault_26_what_is_sent_before_connect_waits_for_it", async (world) => {
  const hub = new Hubbub(URL_, world.options({ autoConnect: false }));
  assert.equal(hub.send("1"), true);
  assert.equal(hub.send("2"), true);
  assert.equal(hub.queued, 2);
  hub.connect();
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["1", "2"]);
});

check("what waits for a connect() that never comes is reported at close()", async (world) => {
  const hub = new Hubbub(URL_, world.options({ autoConnect: false }));
  const log = record(hub, "state", "close", "drop", "stop");
  hub.send("1");
  hub.close(4500, "no need");
  const stop = { code: 4500, reason: "no need", body: null };
  assert.deepEqual(log, [["drop", 1], ["stop", stop]]);
  assert.deepEqual([hub.stopped, hub.queued, hub.send("2")], [stop, 0, false]);
  hub.connect();
  world.socket.open();
  assert.deepEqual([hub.send("3"), world.socket.sent], [true, ["3"]]);
});

check("what the socket still held when it ended is counted as dropped", async (world) => {
  const hub = opened(world);
  const log = record(hub, "drop", "close");
  const { socket } = world;
  hub.send("left at once");
  socket.stuck = true;
  for (const text of ["abcd", "", "efgh"]) assert.equal(hub.send(text), true);
  socket.bufferedAmount = 5; // one byte of the first is still there
  hub.send("ij");
  socket.end();
  assert.deepEqual(log.map(([name, detail]) => [name, detail.code ?? detail]), [
    ["drop", 4], ["close", 1006],
  ]);
});

check("what had left the socket is not counted, however it ends", async (world) => {
  const hub = opened(world);
  const log = record(hub, "drop");
  const { socket } = world;
  socket.stuck = true;
  for (let n = 0; n < 1000; n++) {
    hub.send("abcd");
    socket.bufferedAmount -= n % 2 ? 8 : 0;
  }
  hub.send("abcd");
  socket.bufferedAmount = 4;
  hub.send("efgh");
  socket.end();
  assert.deepEqual(log, [["drop", 2]]);
});

for (const end of ["close", "cut", "reconnect"])
  check(`what the socket cannot send any more after ${end}() is counted as dropped`, async (world) => {
    const hub = opened(world);
    const log = record(hub, "drop");
    const { socket } = world;
    socket.stuck = true;
    hub.send("abcd");
    hub.send("efgh");
    hub[end]();
    assert.deepEqual(log, [], "the socket may still send it");
    socket.bufferedAmount = 4;
    socket.end(1006);
    assert.deepEqual(log, [["drop", 1]]);
  });

check("a message that the socket throws at is not lost from the queue", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.send("1");
  hub.send("2");
  const { socket } = world;
  const { send } = socket;
  socket.send = () => {
    throw new Error("not now");
  };
  assert.throws(() => socket.open(), /not now/);
  assert.equal(hub.queued, 2);
  socket.send = send;
  socket.end();
  await world.clock.advance(1000);
  world.socket.open();
  assert.deepEqual(world.socket.sent, ["1", "2"]);
});
