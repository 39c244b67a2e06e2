/** Coming back: when, after how long, and when not. */
import assert from "node:assert/strict";

import { check, Hubbub, record, reply, settle, shouldComeBack } from "./fakes.mjs";

const URL_ = "ws://hub.test/ws";

/** Fail the present attempt; `random` is what the draw of the delay gets. */
const failOnce = async (world, random) => {
  world.random = random;
  world.socket.fail();
  await settle();
};

check("states go connecting, open, waiting, connecting, open", async (world) => {
  const hub = new Hubbub(URL_, world.options({ autoConnect: false }));
  const log = record(hub, "state");
  assert.equal(hub.state, "closed");
  hub.connect();
  world.socket.open();
  world.socket.end(1012);
  await world.clock.advance(1000);
  world.socket.open();
  assert.deepEqual(log, [
    ["state", "connecting", 0],
    ["state", "open", 0],
    ["state", "waiting", 750],
    ["state", "connecting", 0],
    ["state", "open", 0],
  ]);
  assert.equal(world.sockets.length, 2);
});

check("the first attempt begins in the constructor", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  assert.equal(hub.state, "connecting");
  assert.equal(world.socket.url, URL_);
  assert.equal(hub.socket, world.socket);
});

check("full jitter: each delay is drawn between the floor and a doubling bound", async (world) => {
  for (const random of [0, 0.5, 0.999999]) {
    const hub = new Hubbub(URL_, world.options());
    for (const widest of [1000, 2000, 4000, 8000, 16000, 20000, 20000]) {
      await failOnce(world, random);
      assert.equal(hub.delayMs, Math.round(500 + random * (widest - 500)));
      await world.clock.advance(hub.delayMs);
    }
    hub.close();
  }
});

check("the delay stays within its bounds after very many failures", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  for (let i = 0; i < 1100; i++) {
    await failOnce(world, 0.999999);
    assert.ok(hub.delayMs >= 500 && hub.delayMs <= 20000, `${hub.delayMs}`);
    await world.clock.advance(hub.delayMs);
  }
  assert.equal(hub.tries, 1100);
});

check("minDelayMs and maxDelayMs move the bounds; a floor of 0 still grows", async (world) => {
  const hub = new Hubbub(URL_, world.options({ minDelayMs: 0, maxDelayMs: 1500 }));
  await failOnce(world, 0.999999);
  assert.equal(hub.delayMs, 1000);
  await world.clock.advance(1000);
  await failOnce(world, 0.999999);
  assert.equal(hub.delayMs, 1500);
  await world.clock.advance(1500);
  await failOnce(world, 0);
  assert.equal(hub.delayMs, 0);
});

check("S12: fixedDelayMs is the same delay every time", async (world) => {
  const hub = new Hubbub(URL_, world.options({ fixedDelayMs: 3000 }));
  for (let i = 0; i < 5; i++) {
    await failOnce(world, i / 5);
    assert.equal(hub.delayMs, 3000);
    await world.clock.advance(2999);
    assert.equal(hub.state, "waiting");
    await world.clock.advance(1);
    assert.equal(hub.state, "connecting");
  }
});

check("an option that is undefined has its default", async (world) => {
  const hub = new Hubbub(URL_, world.options({ minDelayMs: undefined, fixedDelayMs: undefined }));
  await failOnce(world, 0);
  assert.equal(hub.delayMs, 500);
});

check("accept and close at once backs off", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const delays = [];
  for (let i = 0; i < 4; i++) {
    world.random = 0.999999;
    world.socket.open();
    await world.clock.advance(4999);
    world.socket.end(1013);
    delays.push(hub.delayMs);
    await world.clock.advance(hub.delayMs);
  }
  assert.deepEqual(delays, [1000, 2000, 4000, 8000]);
});

check("a connection that lasted lets the delays begin anew", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  for (let i = 0; i < 4; i++) {
    await failOnce(world, 0.999999);
    await world.clock.advance(hub.delayMs);
  }
  assert.equal(hub.tries, 4);
  world.socket.open();
  assert.equal(hub.tries, 4);
  await world.clock.advance(5000);
  world.socket.end();
  assert.equal(hub.tries, 1);
  assert.equal(hub.delayMs, 1000);
});

for (const code of [1000, 1002, 1003, 1007, 1008, 1010, 3500, 3503, 3511, 3999, 4500, 4999])
  check(`${code} ends for good`, async (world) => {
    const hub = new Hubbub(URL_, world.options());
    const log = record(hub, "close", "drop", "state", "stop");
    world.socket.open();
    world.socket.end(code, "because");
    const stop = { code, reason: "because", body: null };
    assert.deepEqual(log.slice(1), [
      ["close", { code, reason: "because", opened: true, comesBack: false }],
      ["state", "closed", 0],
      ["stop", stop],
    ]);
    assert.deepEqual(hub.stopped, stop);
    assert.equal(hub.send("x"), false);
    await world.clock.advance(100_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(world.clock.pending, 0);
  });

for (const code of [1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000, 3005, 3008, 3012, 3013, 4000, 4499])
  check(`${code} comes back`, async (world) => {
    const hub = new Hubbub(URL_, world.options());
    const log = record(hub, "close", "stop");
    world.socket.open();
    world.socket.end(code);
    assert.deepEqual(log, [["close", { code, reason: "", opened: true, comesBack: true }]]);
    assert.equal(hub.state, "waiting");
    await world.clock.advance(1000);
    world.socket.open();
    assert.equal(hub.state, "open");
    assert.equal(hub.stopped, null);
  });

check("a close may say when to come back: nobody is early, and nothing wakes it before", async (world) => {
  const page = world.page();
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  world.random = 0;
  world.socket.end(1012, "service restart; retry after 7.250 s");
  assert.equal(hub.delayMs, 7750);
  page.fire("online");
  await world.clock.advance(7749);
  assert.equal(hub.state, "waiting");
  world.random = 0.999999;
  await world.clock.advance(1);
  world.socket.open();
  world.socket.end(3001, "service restart; retry after 2 s");
  assert.ok(hub.delayMs > 2500 && hub.delayMs <= 4000, `${hub.delayMs}`);
});

for (const reason of ["", "retry after", "retry after x s", "retry after -3 s", "retry after 3 s, please"])
  check(`the reason "${reason}" says nothing of when to come back`, async (world) => {
    const hub = new Hubbub(URL_, world.options());
    world.socket.open();
    world.random = 0;
    world.socket.end(1012, reason);
    assert.equal(hub.delayMs, 500);
  });

check("a close that says to come back in a year waits an hour", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  world.random = 0;
  world.socket.end(1012, "retry after 31536000 s");
  assert.equal(hub.delayMs, 3600_500);
});

check("shouldComeBack follows the ranges of application codes", () => {
  for (const code of [3000, 3499, 4000, 4499]) assert.equal(shouldComeBack(code), true);
  for (const code of [3500, 3999, 4500, 4999]) assert.equal(shouldComeBack(code), false);
});

check("an attempt that takes too long is given up", async (world) => {
  const hub = new Hubbub(URL_, world.options({ connectTimeoutMs: 4000 }));
  const log = record(hub, "close");
  const stuck = world.socket;
  await world.clock.advance(3999);
  assert.equal(hub.state, "connecting");
  await world.clock.advance(1);
  assert.equal(hub.state, "waiting");
  assert.equal(stuck.readyState, 2);
  assert.deepEqual(world.requests, []);
  assert.deepEqual(log, [
    ["close", { code: 1006, reason: "connect timeout", opened: false, comesBack: true }],
  ]);
  await world.clock.advance(1000);
  world.socket.open();
  stuck.readyState = 1;
  stuck.open();
  stuck.receive("late");
  stuck.end(1008);
  assert.equal(hub.socket, world.socket);
  assert.equal(hub.state, "open");
});

check("the connect timeout ends when the socket is open", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  await world.clock.advance(60_000);
  assert.equal(hub.state, "open");
  assert.equal(world.clock.pending, 0);
});

check("cut() loses the connection and shows the delay", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const first = world.socket;
  first.open();
  const log = record(hub, "state", "close", "message", "stop");
  hub.cut();
  assert.equal(first.readyState, 2);
  assert.deepEqual(log, [
    ["close", { code: 1006, reason: "cut", opened: true, comesBack: true }],
    ["state", "waiting", 750],
  ]);
  first.receive("stale");
  first.end(3503);
  assert.equal(log.length, 2);
  hub.cut();
  assert.equal(log.length, 2);
  await world.clock.advance(750);
  world.socket.open();
  assert.equal(hub.state, "open");
  assert.notEqual(world.socket, first);
});

check("reconnect() takes a new socket at once", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  hub.reconnect();
  assert.equal(hub.state, "connecting");
  assert.equal(world.sockets.length, 2);
  world.sockets[0].end(3503);
  world.socket.open();
  assert.equal(hub.state, "open");
  await world.clock.advance(60_000);
  assert.equal(world.sockets.length, 2);
});

check("test_fault_26_reconnect_after_an_end_for_good_does_nothing", async (world) => {
  const ends = [(hub) => hub.close(), () => (world.socket.open(), world.socket.end(3503))];
  for (const end of ends) {
    const hub = new Hubbub(URL_, world.options());
    end(hub);
    const { stopped } = hub;
    const log = record(hub, "state", "stop", "close");
    const made = world.sockets.length;
    hub.reconnect();
    await world.clock.advance(1e5);
    assert.deepEqual([hub.state, world.sockets.length, log], ["closed", made, []]);
    assert.equal(hub.stopped, stopped);
    hub.connect();
    assert.equal(world.sockets.length, made + 1);
    hub.close();
  }
});

check("test_fault_26_close_in_a_listener_of_close_wins_over_reconnect", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  hub.on("close", () => hub.close());
  hub.reconnect();
  await world.clock.advance(1e5);
  assert.deepEqual([hub.state, world.sockets.length, world.clock.pending], ["closed", 1, 0]);
});

check("reconnect() before connect() does nothing; in a wait it ends the wait", async (world) => {
  const hub = new Hubbub(URL_, world.options({ autoConnect: false }));
  hub.reconnect();
  assert.deepEqual([hub.state, world.sockets.length], ["closed", 0]);
  hub.connect();
  world.socket.end();
  await settle();
  hub.reconnect();
  assert.deepEqual([hub.state, world.sockets.length], ["connecting", 2]);
});

check("connect() ends a wait at once and does nothing while connected", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.connect();
  world.socket.open();
  hub.connect();
  assert.equal(world.sockets.length, 1);
  world.socket.end();
  hub.connect();
  assert.equal(world.sockets.length, 2);
  await world.clock.advance(2000);
  assert.equal(world.sockets.length, 2);
});

check("connect() starts again after an end for good", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  await failOnce(world, 0);
  await world.clock.advance(500);
  world.socket.open();
  world.socket.end(3503, "go");
  assert.deepEqual([hub.state, hub.tries], ["closed", 1]);
  hub.connect();
  assert.equal(hub.stopped, null);
  assert.equal(hub.tries, 0);
  world.socket.open();
  assert.equal(hub.state, "open");
});

check("close() is final in every state", async (world) => {
  const ways = {
    connecting: () => {},
    open: () => world.socket.open(),
    asking: () => ((world.answer = () => new Promise(() => {})), world.socket.fail()),
    waiting: () => (world.socket.open(), world.socket.end()),
  };
  for (const [way, prepare] of Object.entries(ways)) {
    const hub = new Hubbub(URL_, world.options());
    const log = record(hub, "stop");
    prepare();
    const { socket } = world;
    hub.close(4001, "enough");
    hub.close();
    assert.equal(hub.state, "closed", way);
    assert.deepEqual(log, [["stop", { code: 4001, reason: "enough", body: null }]], way);
    socket.onopen({});
    socket.onmessage({ data: "late" });
    socket.onclose({ code: 1006, reason: "" });
    const made = world.sockets.length;
    await world.clock.advance(100_000);
    assert.equal(world.sockets.length, made, way);
    assert.equal(world.clock.pending, 0, way);
    assert.equal(hub.state, "closed", way);
  }
});

check("close() tells the server why, 1000 by default", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const log = record(hub, "close");
  world.socket.open();
  hub.close();
  assert.deepEqual(world.socket.closedWith, { code: 1000, reason: "" });
  assert.deepEqual(log, [
    ["close", { code: 1000, reason: "", opened: true, comesBack: false }],
  ]);
  assert.equal(hub.socket, null);
});

check("a close code that the browser refuses changes nothing", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.open();
  assert.throws(() => hub.close(1001), { name: "InvalidAccessError" });
  assert.equal(hub.state, "open");
  assert.equal(hub.send("still here"), true);
});

check("close() in a listener of close wins over coming back", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const log = record(hub, "state", "stop");
  hub.on("close", () => hub.close(1000, "no more"));
  world.socket.open();
  world.socket.end();
  assert.deepEqual(log, [
    ["state", "open", 0],
    ["state", "waiting", 750],
    ["state", "closed", 0],
    ["stop", { code: 1000, reason: "no more", body: null }],
  ]);
  await world.clock.advance(60_000);
  assert.equal(world.sockets.length, 1);
  assert.equal(world.clock.pending, 0);
});

check("close() in a listener of connecting opens no socket", async (world) => {
  const hub = new Hubbub(URL_, world.options({ autoConnect: false }));
  hub.on("state", () => hub.close());
  hub.connect();
  await settle();
  assert.equal(world.sockets.length, 0);
  assert.equal(world.clock.pending, 0);
});

check("a refusal that comes late does not disturb a new connection", async (world) => {
  let answer;
  world.answer = () => new Promise((resolve) => (answer = resolve));
  const hub = new Hubbub(URL_, world.options());
  world.socket.fail();
  hub.reconnect();
  world.socket.open();
  answer(await reply(401, { error: "Unauthorized" }));
  await settle();
  assert.equal(hub.state, "open");
});
