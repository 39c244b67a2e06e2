/** The page around the connection: coming online, waking, and leaving nothing behind. */
import assert from "node:assert/strict";

import { check, Hubbub, reply, settle } from "./fakes.mjs";

for (const type of ["online", "pageshow", "visibilitychange"])
  check(`${type} ends a wait at once`, async (world) => {
    const page = world.page();
    const hub = new Hubbub("/ws", world.options());
    world.socket.open();
    world.socket.end();
    page.fire(type);
    assert.equal(hub.state, "connecting");
    assert.equal(world.sockets.length, 2);
    world.socket.open();
    await world.clock.advance(60_000);
    assert.equal(world.sockets.length, 2);
  });

check("a page that is hidden waits on, but being online counts", async (world) => {
  const page = world.page();
  const hub = new Hubbub("/ws", world.options());
  world.socket.open();
  world.socket.end();
  page.document.visibilityState = "hidden";
  page.fire("visibilitychange");
  assert.equal(hub.state, "waiting");
  page.fire("online");
  assert.equal(hub.state, "connecting");
});

check("these events touch neither an attempt nor a connection", async (world) => {
  const page = world.page();
  const hub = new Hubbub("/ws", world.options());
  for (const state of ["connecting", "open"]) {
    for (const type of ["online", "offline", "pageshow", "visibilitychange"]) page.fire(type);
    assert.equal(hub.state, state);
    assert.equal(world.sockets.length, 1);
    if (state === "connecting") world.socket.open();
  }
});

check("going offline leaves a live connection alone", async (world) => {
  const page = world.page();
  const hub = new Hubbub("/ws", world.options());
  world.socket.open();
  page.fire("offline");
  assert.equal(hub.send("x"), true);
  assert.deepEqual(world.socket.sent, ["x"]);
});

check("waking does not undercut a delay that the server named", async (world) => {
  const page = world.page();
  world.answer = () => reply(503, {}, { "retry-after": "30" });
  const hub = new Hubbub("/ws", world.options());
  world.socket.fail();
  await settle();
  page.fire("online");
  assert.equal(hub.state, "waiting");
  hub.connect();
  assert.equal(hub.state, "connecting");
  world.answer = () => reply(503);
  world.socket.fail();
  await settle();
  page.fire("online");
  assert.equal(hub.state, "connecting");
});

check("an attempt that waking began fails into a longer delay", async (world) => {
  const page = world.page();
  const hub = new Hubbub("/ws", world.options());
  world.random = 0.999999;
  for (const delay of [1000, 2000, 4000]) {
    world.socket.fail();
    await settle();
    assert.equal(hub.delayMs, delay);
    page.fire("online");
  }
});

check("an end for good leaves no listener and no timer behind", async (world) => {
  const page = world.page();
  const ends = [
    (hub) => hub.close(),
    () => (world.socket.open(), world.socket.end(3503)),
    () => ((world.answer = () => reply(401)), world.socket.fail()),
  ];
  for (const end of ends) {
    const hub = new Hubbub("/ws", world.options());
    assert.equal(page.listeners.length, 3);
    end(hub);
    await settle();
    assert.equal(hub.state, "closed");
    assert.deepEqual([page.listeners.length, world.clock.pending], [0, 0]);
    hub.connect();
    assert.equal(page.listeners.length, 3);
    hub.close();
    assert.equal(page.listeners.length, 0);
  }
});

check("many connections in a row leave one set of listeners", async (world) => {
  const page = world.page();
  const hub = new Hubbub("/ws", world.options());
  for (let i = 0; i < 10; i++) {
    world.socket.open();
    world.socket.end();
    await world.clock.advance(hub.delayMs);
  }
  hub.reconnect();
  assert.equal(page.listeners.length, 3);
  assert.equal(world.clock.pending, 1);
});

check("without a page everything else works", async (world) => {
  assert.equal(globalThis.document, undefined);
  const hub = new Hubbub("ws://hub.test/ws", world.options());
  world.socket.open();
  world.socket.end();
  await world.clock.advance(1000);
  world.socket.open();
  assert.equal(hub.state, "open");
  hub.close();
});
