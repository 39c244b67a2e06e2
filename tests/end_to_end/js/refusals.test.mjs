/** Every refusal, failure and close code of tests/refusals.json: what follows it. */
import assert from "node:assert/strict";

import { check, Hubbub, record, Rooms, reply, rows, settle, shouldComeBack } from "./fakes.mjs";

const URL_ = "ws://hub.test/ws?token=t";
const { never_open: NEVER_OPEN, was_open: WAS_OPEN } = rows.gives_up_after;

/** Fail the present attempt, and let the next one begin if there is one. */
const refuse = async (world, hub) => {
  world.socket.fail();
  await settle();
  await world.clock.advance(hub.delayMs);
};

/** A hub whose questions are answered by `status`, and what it tells. */
const refusing = (world, status, body = { error: `because ${status}` }, headers = {}) => {
  world.answer = () => reply(status, body, headers);
  const hub = new Hubbub(URL_, world.options());
  return [hub, record(hub, "close", "stop")];
};

for (const row of rows.refusals) {
  const { status } = row;
  const reason = status < 400 ? `HTTP ${status}` : `because ${status}`;
  const isReason = (found) =>
    status === 426 ? assert.match(found, /would be accepted/) : assert.equal(found, reason);
  // Response knows no redirect with a body; what it says is not read.
  const body = status < 400 ? {} : { error: reason };

  if (!row.comes_back)
    check(`test_fault_11_${status}_stops_at_once_with_its_reason`, async (world) => {
      const [hub, log] = refusing(world, status, body);
      await refuse(world, hub);
      assert.deepEqual(log, [
        ["close", { code: 1006, reason, opened: false, comesBack: false }],
        ["stop", { code: status, reason, body }],
      ]);
      await world.clock.advance(1e6);
      assert.deepEqual([hub.state, world.sockets.length, world.clock.pending], ["closed", 1, 0]);
    });
  else if (row.gives_up)
    check(`test_fault_11_${status}_stops_after_so_many_in_a_row`, async (world) => {
      const [hub, log] = refusing(world, status, body);
      for (let n = 1; n < NEVER_OPEN; n++) {
        await refuse(world, hub);
        assert.equal(hub.state, "connecting");
        assert.equal(log.at(-1)[1].comesBack, true);
        isReason(log.at(-1)[1].reason);
      }
      await refuse(world, hub);
      assert.equal(hub.state, "closed");
      assert.equal(hub.stopped.code, status);
      isReason(hub.stopped.reason);
      await world.clock.advance(1e6);
      assert.deepEqual([world.sockets.length, world.clock.pending], [NEVER_OPEN, 0]);
    });
  else
    check(`${status} comes back for ever, and says why`, async (world) => {
      const [hub, log] = refusing(world, status, body, { "retry-after": "7" });
      for (let n = 1; n <= 2 * WAS_OPEN; n++) {
        world.socket.fail();
        await settle();
        assert.equal(hub.state, "waiting");
        assert.equal(hub.delayMs >= 7000 && hub.tries < 3, !!row.retry_after && hub.tries < 3);
        await world.clock.advance(hub.delayMs);
      }
      assert.equal(log.length, 2 * WAS_OPEN);
      for (const [, close] of log)
        assert.deepEqual(close, { code: 1006, reason, opened: false, comesBack: true });
    });
}

check("statuses that have no row follow their hundred", async (world) => {
  const stops = async (status) => {
    const [hub] = refusing(world, status);
    await refuse(world, hub);
    const { stopped } = hub;
    hub.close();
    return stopped !== null;
  };
  for (const status of [417, 424, 428, 444, 499]) assert.equal(await stops(status), true, `${status}`);
  for (const status of [206, 303, 505, 520, 598])
    assert.equal(await stops(status), false, `${status}`);
});

check("a redirect that the browser hides counts as one", async (world) => {
  world.answer = () => Promise.resolve({ status: 0, json: () => Promise.reject(new Error("opaque")) });
  const hub = new Hubbub(URL_, world.options());
  for (let n = 0; n < NEVER_OPEN; n++) await refuse(world, hub);
  assert.deepEqual(hub.stopped, { code: 300, reason: "HTTP 300", body: null });
});

check("test_fault_11_what_was_open_once_is_given_many_more_attempts", async (world) => {
  const [hub, log] = refusing(world, 404);
  world.socket.open();
  world.socket.end(1012);
  await world.clock.advance(hub.delayMs);
  for (let n = 1; n < WAS_OPEN; n++) await refuse(world, hub);
  assert.equal(hub.state, "connecting");
  await refuse(world, hub);
  assert.equal(hub.state, "closed");
  assert.deepEqual(log.at(-1)[1], { code: 404, reason: "because 404", body: { error: "because 404" } });
});

check("connect() after the end forgets that a connection was open once", async (world) => {
  const [hub] = refusing(world, 404);
  world.socket.open();
  hub.close();
  hub.connect();
  for (let n = 1; n < NEVER_OPEN; n++) await refuse(world, hub);
  assert.equal(hub.state, "connecting");
  await refuse(world, hub);
  assert.equal(hub.state, "closed");
});

check("another ending begins the count anew, and so does connect()", async (world) => {
  const [hub] = refusing(world, 404);
  const others = [
    () => ((world.answer = () => reply(503)), refuse(world, hub)),
    () => ((world.answer = () => Promise.reject(new TypeError("no network"))), refuse(world, hub)),
    () => world.clock.advance(10_000).then(() => world.clock.advance(hub.delayMs)),
  ];
  for (const other of others) {
    world.answer = () => reply(404);
    for (let n = 1; n < NEVER_OPEN; n++) await refuse(world, hub);
    assert.equal(hub.state, "connecting");
    await other();
  }
  world.answer = () => reply(404);
  for (let n = 0; n < NEVER_OPEN; n++) await refuse(world, hub);
  assert.equal(hub.state, "closed");
  hub.connect();
  for (let n = 1; n < NEVER_OPEN; n++) await refuse(world, hub);
  assert.equal(hub.state, "connecting");
  await refuse(world, hub);
  assert.equal(hub.state, "closed");
});

/** What a browser says of an answer that is none is the same, whatever came. */
const endWithoutAnswer = async (world) => {
  world.answer = () => Promise.reject(new TypeError("no HTTP"));
  world.socket.end(1006);
  await settle();
};

const FAILURES = {
  nobody_listens: async (world) => {
    world.socket.fail();
    await settle();
  },
  no_answer: (world) => world.clock.advance(10_000),
  ends_early: endWithoutAnswer,
  not_http: endWithoutAnswer,
  wire_cut: async (world) => {
    world.socket.open();
    world.socket.end(1006);
  },
};

for (const row of rows.failures)
  check(`${row.cause} comes back`, async (world) => {
    const hub = new Hubbub(URL_, world.options());
    for (let n = 1; n <= 2 * NEVER_OPEN; n++) {
      await FAILURES[row.cause](world);
      assert.equal(hub.state === "waiting", row.comes_back);
      await world.clock.advance(hub.delayMs);
      assert.equal(world.sockets.length, n + 1);
    }
  });

const CLIENTS = {
  "hubbub.js": (url, options) => new Hubbub(url, options),
  "rooms.js": (url, options) => new Rooms(url, options),
};

/** Open it; to rooms.js the server says who it is. */
const welcome = ({ socket }, name) => {
  socket.open();
  if (name === "rooms.js") socket.receive('{"id":1,"connect":{"client":"c"}}');
};

for (const [name, make] of Object.entries(CLIENTS))
  for (const { code, comes_back: comesBack, new_token: newToken } of rows.closes)
    check(`a connection of ${name} closed with ${code} comes back: ${comesBack}`, async (world) => {
      let asked = 0;
      const url = () => `ws://hub.test/ws?token=${++asked}`;
      const client = make(url, world.options());
      const log = record(client, "close", "stop");
      await settle();
      welcome(world, name);
      assert.equal(client.state, "open");
      world.socket.end(code, "because");
      assert.deepEqual(log[0], ["close", { code, reason: "because", opened: true, comesBack }]);
      assert.equal(shouldComeBack(code), comesBack);
      await world.clock.advance(1e5);
      assert.equal(world.sockets.length > 1, comesBack);
      if (comesBack) assert.equal(world.socket.url, `ws://hub.test/ws?token=${asked}`);
      else assert.deepEqual(log[1], ["stop", { code, reason: "because", body: null }]);
      if (newToken) assert.ok(asked > 1);
    });

for (const { code, new_token: newToken } of rows.closes.filter((row) => row.comes_back))
  check(`after ${code} rooms.js asks for a new token: ${!!newToken}`, async (world) => {
    let asked = 0;
    const getToken = () => `token ${++asked}`;
    const rooms = new Rooms(URL_, world.options({ getToken }));
    await settle();
    welcome(world, "rooms.js");
    world.socket.end(code, "because");
    await world.clock.advance(rooms.delayMs);
    assert.equal(world.sockets.length, 2);
    assert.equal(asked, newToken ? 2 : 1);
  });

check("rooms.js draws its delays as hubbub.js does", async (world) => {
  const options = { fetch: null, WebSocket: world.WebSocket, minDelayMs: 100, maxDelayMs: 5000 };
  const hub = new Hubbub(URL_, { ...options, autoConnect: false });
  const rooms = new Rooms(URL_, options);
  const room = rooms.room("a");
  welcome(world, "rooms.js");
  room.subscribe();
  for (let tries = 1; tries <= 8; tries++) {
    world.random = tries / 10;
    const widest = Math.min(5000, 100 * 2 ** tries);
    const delayMs = hub.drawDelay(tries);
    assert.equal(delayMs, 100 + world.random * (widest - 100));
    await settle();
    const { id } = JSON.parse(world.socket.sent.at(-1));
    const sent = world.socket.sent.length;
    world.socket.receive(JSON.stringify({ id, error: { code: 100, message: "later", temporary: true } }));
    await world.clock.advance(delayMs - 1);
    assert.equal(world.socket.sent.length, sent);
    await world.clock.advance(2);
    assert.equal(world.socket.sent.length, sent + 1);
  }
});
