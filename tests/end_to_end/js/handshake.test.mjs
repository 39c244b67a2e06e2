/** The URL, and what is learnt when a handshake fails. */
import assert from "node:assert/strict";

import { check, Hubbub, record, reply, settle } from "./fakes.mjs";

const URL_ = "ws://hub.test/ws?token=t";

check("URLs: http becomes ws, the fragment goes, the page completes the rest", async (world) => {
  world.page("https://example.test:8443/room/1?x=y#top");
  const cases = {
    "ws://a.test/ws": "ws://a.test/ws",
    "http://a.test/ws?id=1#x": "ws://a.test/ws?id=1",
    "HTTPS://a.test/ws": "wss://a.test/ws",
    "/ws": "wss://example.test:8443/ws",
    "ws?a=b": "wss://example.test:8443/room/ws?a=b",
    "//b.test/ws": "wss://b.test/ws",
  };
  for (const [url, wanted] of Object.entries(cases)) {
    new Hubbub(url, world.options()).close();
    assert.equal(world.socket.url, wanted);
  }
  new Hubbub(new URL("http://a.test/ws"), world.options()).close();
  assert.equal(world.socket.url, "ws://a.test/ws");
});

check("a page without TLS gives ws:", async (world) => {
  world.page("http://localhost:8080/websocket");
  new Hubbub("/ws", world.options());
  assert.equal(world.socket.url, "ws://localhost:8080/ws");
});

check("a URL that cannot be right throws in the constructor", async (world) => {
  assert.throws(() => new Hubbub("/ws", world.options()), TypeError);
  assert.throws(() => new Hubbub("http://", world.options()), TypeError);
  assert.equal(world.clock.pending, 0);
});

check("without any WebSocket the constructor says what to do", async (world) => {
  world.define("WebSocket", undefined);
  assert.throws(() => new Hubbub(URL_), /pass a WebSocket in the options/);
});

check("protocols are passed on", async (world) => {
  new Hubbub(URL_, world.options({ protocols: ["chat.v2", "chat.v1"] }));
  assert.deepEqual(world.socket.protocols, ["chat.v2", "chat.v1"]);
});

check("a URL function is called at every attempt, and may be async", async (world) => {
  let token = 0;
  const hub = new Hubbub(async () => `ws://hub.test/ws?token=${++token}`, world.options());
  assert.equal(hub.state, "connecting");
  await settle();
  world.socket.open();
  world.socket.end();
  await world.clock.advance(1000);
  world.socket.fail();
  await settle();
  await world.clock.advance(2000);
  assert.deepEqual(
    world.sockets.map((socket) => socket.url.slice(-1)),
    ["1", "2", "3"],
  );
  assert.deepEqual(world.requests.map((it) => it.url), ["http://hub.test/ws?token=2"]);
});

check("a plain URL function works too", async (world) => {
  const hub = new Hubbub(() => "ws://hub.test/ws", world.options());
  await settle();
  world.socket.open();
  assert.equal(hub.state, "open");
});

check("a URL function that fails is an error and another attempt", async (world) => {
  const answers = [() => Promise.reject(new Error("no token")), () => "http://", () => URL_];
  const hub = new Hubbub(() => answers.shift()(), world.options());
  const log = record(hub, "error", "close");
  await settle();
  assert.equal(log[0][1].message, "no token");
  assert.equal(log[1][1].reason, "Error: no token");
  assert.equal(hub.state, "waiting");
  await world.clock.advance(1000);
  assert.equal(log.length, 4);
  await world.clock.advance(2000);
  world.socket.open();
  assert.equal(hub.state, "open");
  assert.deepEqual(world.requests, []);
});

check("a URL function that hangs is given up, and its late answer ignored", async (world) => {
  let late;
  const answers = [() => new Promise((resolve) => (late = resolve)), () => URL_];
  const hub = new Hubbub(() => answers.shift()(), world.options());
  await world.clock.advance(10_000);
  assert.equal(hub.state, "waiting");
  late("ws://late.test/ws");
  await world.clock.advance(1000);
  assert.deepEqual(world.sockets.map((socket) => socket.url), [URL_]);
});

check("a URL function may end it for good", async (world) => {
  const hub = new Hubbub(async () => {
    await null;
    hub.close(4501, "signed out");
    return URL_;
  }, world.options());
  await settle();
  assert.equal(hub.state, "closed");
  assert.equal(hub.stopped.reason, "signed out");
  assert.equal(world.sockets.length, 0);
});

check("a URL function that fails after close() is not reported", async (world) => {
  const hub = new Hubbub(() => Promise.reject(new Error("late")), world.options());
  const log = record(hub, "error", "state");
  hub.close();
  await settle();
  assert.deepEqual(log, [["state", "closed", 0]]);
});

class RefusingSocket {
  constructor() {
    throw new DOMException("mixed content", "SecurityError");
  }
}

check("test_fault_11_what_new_WebSocket_throws_is_thrown_once_at_construction", async (world) => {
  const page = world.page("https://example.test/");
  assert.throws(
    () => new Hubbub("ws://a.test/", world.options({ WebSocket: RefusingSocket })),
    { name: "TypeError", message: "SecurityError: mixed content" },
  );
  await world.clock.advance(100_000);
  assert.deepEqual([world.clock.pending, page.listeners.length], [0, 0]);
});

check("test_fault_11_what_new_WebSocket_throws_later_ends_for_good", async (world) => {
  const stop = { code: 1006, reason: "SecurityError: mixed content", body: null };
  const urls = [URL_, async () => URL_];
  for (const url of urls) {
    const hub = new Hubbub(url, world.options({ WebSocket: RefusingSocket, autoConnect: false }));
    const log = record(hub, "error", "close", "stop");
    hub.connect();
    await settle();
    assert.equal(log[0][1].name, "SecurityError");
    assert.deepEqual(log.slice(1), [
      ["close", { code: 1006, reason: stop.reason, opened: false, comesBack: false }],
      ["stop", stop],
    ]);
    assert.deepEqual([hub.state, world.clock.pending], ["closed", 0]);
  }
});

check("test_fault_11_wrong_urls_throw_at_construction", async (world) => {
  const wrong = [
    "ftp://a.test/", "ws:/x", "ws:x", "wss:/a.test/ws", "http:/x", " https:x", "ws:///x", "ws:\\\\x",
    "localhost:8080/ws", "javascript:1", "ws://", "ws://a b", "ws://a:99999", undefined, null, 7, {},
  ];
  const tryAll = () => {
    for (const url of wrong)
      for (const autoConnect of [true, false])
        assert.throws(() => new Hubbub(url, world.options({ autoConnect })), TypeError, `${url}`);
  };
  tryAll();
  const page = world.page("http://example.test/");
  tryAll();
  assert.throws(() => new Hubbub(new URL("ftp://a.test/"), world.options()), TypeError);
  assert.deepEqual([world.sockets, world.clock.pending, page.listeners], [[], 0, []]);
  world.page("file:///home/ann/page.html");
  assert.throws(() => new Hubbub("/ws", world.options()), /no WebSocket URL: \/ws$/);
});

check("the error of a wrong URL does not show the query, where tokens are", async (world) => {
  assert.throws(() => new Hubbub("ftp://a.test/ws?token=secret", world.options()), {
    message: "no WebSocket URL: ftp://a.test/ws",
  });
});

check("test_fault_11_wrong_options_throw_at_construction", async (world) => {
  const wrong = [
    { protocols: "two words" }, { protocols: ["a", "b,c"] }, { protocols: [""] }, { protocols: "" },
    { protocols: ["a", "a"] }, { protocols: "é" }, { protocols: [{}] },
    { minDelay: 5 }, { minDelayMs: -1 }, { minDelayMs: NaN }, { minDelayMs: "500" },
    { maxDelayMs: Infinity }, { fixedDelayMs: -1 }, { stableMs: null }, { connectTimeoutMs: Infinity },
    { connectTimeoutMs: 0 }, { connectTimeoutMs: null }, { maxQueue: NaN }, { maxQueueBytes: -1 },
    { minDelayMs: 30_000 }, { maxDelayMs: 100 }, { stableMs: 1e9 + 1 },
  ];
  for (const options of wrong)
    for (const autoConnect of [true, false])
      assert.throws(
        () => new Hubbub(URL_, world.options({ ...options, autoConnect })),
        TypeError,
        JSON.stringify(options),
      );
  assert.deepEqual([world.sockets, world.clock.pending], [[], 0]);
  const right = { maxQueue: Infinity, maxQueueBytes: Infinity, fixedDelayMs: 0, stableMs: 1e9 };
  new Hubbub(URL_, world.options({ ...right, protocols: ["a", "A", "chat.v1", "!#$%&'*+-.^_`|~"] }));
  assert.equal(world.sockets.length, 1);
});

check("test_fault_26_relative_urls_honour_the_base_of_the_page", async (world) => {
  const page = world.page("https://example.test/room/1");
  page.document.baseURI = "https://other.test/app/";
  new Hubbub("ws?a=b", world.options());
  assert.equal(world.socket.url, "wss://other.test/app/ws?a=b");
  page.document.baseURI = "http://third.test/";
  new Hubbub(async () => "/ws", world.options());
  await settle();
  assert.equal(world.socket.url, "ws://third.test/ws");
});

check("close() in a listener of error is final", async (world) => {
  const hub = new Hubbub(() => Promise.reject(new Error("x")), world.options());
  hub.on("error", () => hub.close());
  const log = record(hub, "stop");
  await world.clock.advance(60_000);
  assert.equal(log.length, 1);
  assert.equal(world.clock.pending, 0);
});

check("a failed handshake asks the same URL by GET", async (world) => {
  world.answer = () => reply(426, { error: "Upgrade Required" });
  const hub = new Hubbub("wss://hub.test/ws?token=t", world.options());
  const log = record(hub, "error", "close");
  world.socket.fail();
  assert.equal(hub.state, "connecting");
  await settle();
  const [{ url, init }] = world.requests;
  assert.equal(url, "https://hub.test/ws?token=t");
  const { signal, ...rest } = init;
  assert.deepEqual(rest, {
    credentials: "include",
    cache: "no-store",
    redirect: "manual",
    referrerPolicy: "origin",
  });
  assert.ok(signal instanceof AbortSignal);
  assert.equal(log[0][1].message, "the connection failed");
  const { reason: why, ...ending } = log[1][1];
  assert.match(why, /a WebSocket would be accepted; does a proxy or a subprotocol prevent it/);
  assert.deepEqual(ending, { code: 1006, opened: false, comesBack: true });
  assert.equal(hub.state, "waiting");
});

for (const close of [true, false])
  check(`a failed handshake asks once, close event: ${close}`, async (world) => {
    world.answer = () => reply(401, { error: "no" });
    const hub = new Hubbub(URL_, world.options());
    const log = record(hub, "error", "close", "stop");
    world.socket.fail({ error: new Error("status 401"), close });
    await settle();
    assert.equal(world.requests.length, 1);
    assert.deepEqual(log.map(([name]) => name), ["error", "close", "stop"]);
    assert.equal(log[0][1].message, "status 401");
  });

check("a failed handshake without an error event asks too", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.end();
  await settle();
  assert.equal(world.requests.length, 1);
  assert.equal(hub.state, "waiting");
});

check("an error of an open connection asks nothing and ends nothing", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  const log = record(hub, "error");
  world.socket.open();
  world.socket.onerror({});
  assert.deepEqual([hub.state, log.length, world.requests], ["open", 1, []]);
  world.socket.end();
  assert.equal(hub.state, "waiting");
});

check("reconnect() in a listener of error leaves the new attempt alone", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  hub.on("error", () => hub.reconnect());
  world.socket.fail();
  await settle();
  assert.deepEqual([hub.state, world.sockets.length, world.requests], ["connecting", 2, []]);
});

check("a connection that was open asks nothing", async (world) => {
  new Hubbub(URL_, world.options());
  world.socket.open();
  world.socket.end();
  await settle();
  assert.deepEqual(world.requests, []);
});

for (const status of [401, 403])
  check(`S16: ${status} ends for good, with the server's reason`, async (world) => {
    const body = { error: "The token has expired", code: "expired", since: 5 };
    world.answer = () => reply(status, body);
    const hub = new Hubbub(URL_, world.options());
    const log = record(hub, "close", "drop", "state", "stop");
    hub.send("never goes");
    world.socket.fail();
    await settle();
    assert.deepEqual(log, [
      ["close", { code: 1006, reason: body.error, opened: false, comesBack: false }],
      ["drop", 1],
      ["state", "closed", 0],
      ["stop", { code: status, reason: "The token has expired", body }],
    ]);
    await world.clock.advance(100_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(world.clock.pending, 0);
  });

check("a refusal without JSON still has a reason", async (world) => {
  world.answer = () => Promise.resolve(new Response("<h1>no</h1>", { status: 403 }));
  const hub = new Hubbub(URL_, world.options());
  world.socket.fail();
  await settle();
  assert.deepEqual(hub.stopped, { code: 403, reason: "HTTP 403", body: null });
});

check("a GET that fails goes on: no network, or CORS", async (world) => {
  const hub = new Hubbub(URL_, world.options());
  world.socket.fail();
  await settle();
  assert.equal(hub.state, "waiting");
  assert.equal(hub.delayMs, 750);
});

check("fetch: null never asks", async (world) => {
  const hub = new Hubbub(URL_, world.options({ fetch: null }));
  world.socket.fail();
  await settle();
  assert.equal(hub.state, "waiting");
});

check("fetch is called without a this, as browsers demand", async (world) => {
  let self = "not called";
  function fetch() {
    self = this;
    return reply(426);
  }
  new Hubbub(URL_, world.options({ fetch }));
  world.socket.fail();
  await settle();
  assert.equal(self, undefined);
});

check("a GET that hangs is given up and aborted", async (world) => {
  world.answer = () => new Promise(() => {});
  const hub = new Hubbub(URL_, world.options());
  await world.clock.advance(9000);
  world.socket.fail();
  await world.clock.advance(9999);
  assert.equal(hub.state, "connecting");
  await world.clock.advance(1);
  assert.equal(hub.state, "waiting");
  assert.equal(world.requests[0].init.signal.aborted, true);
});

check("a refusal whose body hangs is given up too", async (world) => {
  world.answer = () => Promise.resolve({ status: 401, json: () => new Promise(() => {}) });
  const hub = new Hubbub(URL_, world.options());
  world.socket.fail();
  await world.clock.advance(10_000);
  assert.equal(hub.state, "waiting");
});

check("a handshake that never opened does not end by its close code", async (world) => {
  world.answer = () => reply(426);
  const hub = new Hubbub(URL_, world.options());
  world.socket.end(1002);
  await settle();
  assert.equal(hub.state, "waiting");
});

for (const status of [429, 503])
  check(`Retry-After of a ${status} is the least delay`, async (world) => {
    world.answer = () => reply(status, {}, { "retry-after": "7" });
    const hub = new Hubbub(URL_, world.options());
    for (const random of [0, 0.999999]) {
      world.random = random;
      world.socket.fail();
      await settle();
      assert.equal(hub.delayMs, 7000 + (random ? 2000 : 500));
      await world.clock.advance(6999);
      assert.equal(hub.state, "waiting");
      await world.clock.advance(2001);
      assert.equal(hub.state, "connecting");
    }
  });

check("Retry-After may be a date; nonsense and the past count for nothing", async (world) => {
  const hub = new Hubbub(URL_, world.options({ fixedDelayMs: 1 }));
  const date = (ms) => new Date(world.clock.now + ms).toUTCString();
  const cases = [
    [() => date(30_000), 30_000],
    [() => date(-30_000), 0],
    [() => "soon", 0],
    [() => "0", 0],
    [() => "-5", 0],
    [() => "99999999999", 3_600_000],
    [() => "9".repeat(400), 3_600_000],
  ];
  for (const [header, wanted] of cases) {
    world.answer = () => reply(503, {}, { "retry-after": header() });
    world.socket.fail();
    await settle();
    assert.equal(hub.delayMs, wanted + 1, header());
    await world.clock.advance(hub.delayMs);
  }
});

check("Retry-After of another status is not heard", async (world) => {
  world.answer = () => reply(500, {}, { "retry-after": "7" });
  const hub = new Hubbub(URL_, world.options());
  world.socket.fail();
  await settle();
  assert.equal(hub.delayMs, 750);
});
