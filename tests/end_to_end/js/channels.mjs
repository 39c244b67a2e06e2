// What the demo's page /channels counts with, and its wire, in a scripted world. Run with node --test.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { check } from "./fakes.mjs";

async function load(name) {
  const place = new URL(`../../../src/hubbub/demo/static/js/${name}`, import.meta.url);
  return import(`data:text/javascript,${encodeURIComponent(readFileSync(place, "utf8"))}`);
}

const { Tally } = await load("tally.js");
const { Wire } = await load("wire.js");

function tally(before, numbers, newest) {
  const made = new Tally(before);
  for (const number of numbers) made.take(number);
  return [made.missed(newest), made.twice, made.came];
}

test("numbers are counted: what is missing, and what came twice", () => {
  const cases = [
    [[3, [4, 5, 6]], [0, 0, 3]],
    [[3, [6, 4, 5]], [0, 0, 3]],
    [[3, [5, 7]], [2, 0, 2]],
    [[3, [4, 4, 5, 4]], [0, 2, 2]],
    [[3, [3, 4]], [0, 1, 1]],
    [[3, [1, 6, 6]], [2, 2, 1]],
    [[3, []], [0, 0, 0]],
    [[3, [], 5], [2, 0, 0]],
    [[3, [4], 5], [1, 0, 1]],
    [[3, [4, 5, 6], 5], [0, 0, 3]],
    [[0, [1, 2]], [0, 0, 2]],
    [[0, [], 2], [2, 0, 0]],
    [[null, [7, 8, 10]], [1, 0, 3]],
    [[null, [], 9], [0, 0, 0]],
  ];
  for (const [given, expected] of cases) assert.deepEqual(tally(...given), expected, String(given));
});

/** Fakes of the browser's sockets, which have listeners. */
function wired(world) {
  const sockets = [];
  class Real extends EventTarget {
    closed = 0;
    sent = [];
    readyState = 1;

    constructor(url) {
      super();
      this.url = url;
      sockets.push(this);
    }

    send(data) {
      this.sent.push(data);
    }

    close() {
      this.closed += 1;
    }

    tell(kind, details) {
      this.dispatchEvent(Object.assign(new Event(kind), details));
    }
  }
  world.define("WebSocket", Real);
  const wire = new Wire();
  const heard = [];
  const connect = () => {
    const socket = new wire.WebSocket("ws://a");
    const note = (kind) => (event) => heard.push([kind, event.data ?? event.code ?? null]);
    for (const kind of ["open", "message", "error", "close"]) socket[`on${kind}`] = note(kind);
    return socket;
  };
  return { wire, sockets, heard, connect };
}

check("a whole wire changes nothing", async (world) => {
  const { sockets, heard, connect } = wired(world);
  const socket = connect();
  sockets[0].tell("open");
  sockets[0].tell("message", { data: "hello" });
  socket.send("x");
  socket.close();
  sockets[0].tell("close", { code: 1000 });
  assert.equal(sockets[0].url, "ws://a");
  assert.deepEqual(heard, [["open", null], ["message", "hello"], ["close", 1000]]);
  assert.deepEqual([sockets[0].sent, sockets[0].closed, socket.readyState], [["x"], 1, 3]);
});

check("a cut loses what is open, as by accident, and what is on its way", async (world) => {
  const { wire, sockets, heard, connect } = wired(world);
  const socket = connect();
  sockets[0].tell("open");
  wire.cut(10_000);
  sockets[0].tell("message", { data: "too late" });
  socket.send("too late");
  sockets[0].tell("close", { code: 1005 });
  assert.deepEqual(heard, [["open", null], ["error", null], ["close", 1006]]);
  assert.deepEqual([sockets[0].sent, sockets[0].closed, socket.readyState], [[], 1, 3]);
});

check("nothing connects until it is mended, and then it does", async (world) => {
  const { wire, sockets, heard, connect } = wired(world);
  let changes = 0;
  wire.onchange = () => (changes += 1);
  wire.cut(10_000);
  assert.equal(wire.mendedAt, Date.now() + 10_000);
  for (const seconds of [1, 8]) {
    const socket = connect();
    assert.equal(socket.readyState, 0);
    await world.clock.advance(seconds * 1000);
    assert.equal(socket.readyState, 3);
  }
  assert.equal(wire.refused, 2);
  assert.deepEqual(heard, [["error", null], ["close", 1006], ["error", null], ["close", 1006]]);
  assert.equal(sockets.length, 0, "the browser was not asked");
  await world.clock.advance(1000);
  assert.equal(wire.mendedAt, 0);
  assert.equal(changes, 4);
  connect();
  assert.equal(sockets.length, 1);
});

check("it can be mended earlier, and a later cut has its whole time", async (world) => {
  const { wire, sockets, connect } = wired(world);
  wire.cut(10_000);
  await world.clock.advance(5000);
  wire.mend();
  connect();
  assert.equal(sockets.length, 1);
  wire.cut(10_000);
  await world.clock.advance(9000);
  assert.notEqual(wire.mendedAt, 0);
  assert.equal(sockets[0].closed, 1);
  await world.clock.advance(1000);
  assert.equal(wire.mendedAt, 0);
});
