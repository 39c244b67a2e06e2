/**
 * The scripted world of the tests of hubbub.js, and of rooms.js where both do the same: a clock, sockets, HTTP answers and a page, all of
 * which do only what a test tells them. No test opens a connection or waits for real time.
 */
import { readFileSync } from "node:fs";
import test from "node:test";

import { load } from "./loading.mjs";

const STATIC = new URL("../../../src/hubbub/static/", import.meta.url);
export const { Hubbub, shouldComeBack } = await load(new URL("hubbub.js", STATIC));
export const { Rooms } = await load(new URL("rooms.js", STATIC));

const real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };

/** Timers and Date.now() that move only in advance(). */
class FakeClock {
  now = 1_000_000;
  #timers = new Map();
  #last = 0;

  setTimeout = (callback, ms) => {
    this.#timers.set(++this.#last, { callback, at: this.now + ms });
    return this.#last;
  };

  clearTimeout = (id) => void this.#timers.delete(id);

  get pending() {
    return this.#timers.size;
  }

  /** Move on by `ms`, running what falls due, each at its own time. */
  async advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end);
      if (!due.length) break;
      const [id, timer] = due.reduce((first, next) => (next[1].at < first[1].at ? next : first));
      this.#timers.delete(id);
      this.now = Math.max(this.now, timer.at);
      timer.callback();
      await settle();
    }
    this.now = end;
    await settle();
  }
}

/** Let everything that only waits for promises happen. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A socket that a test opens, feeds and closes by hand. */
class FakeSocket {
  readyState = 0;
  sent = [];
  /** Whether what is sent stays in the buffer. */
  stuck = false;
  bufferedAmount = 0;
  closedWith = null;

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(data) {
    if (this.readyState !== 1) throw new Error("send on a socket that is not open");
    this.sent.push(data);
    if (this.stuck) this.bufferedAmount += new Blob([data]).size;
  }

  close(code, reason) {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999))
      throw new DOMException("bad close code", "InvalidAccessError");
    if (this.readyState > 1) return;
    this.readyState = 2;
    this.closedWith = { code, reason };
  }

  /** The server accepts. */
  open() {
    this.readyState = 1;
    this.onopen({});
  }

  /** The server sends. */
  receive(data) {
    this.onmessage({ data });
  }

  /** The connection ends; without arguments, as an accident. */
  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  /** The handshake fails; Node 22 then leaves out the close event. */
  fail({ error, close = true } = {}) {
    this.readyState = 3;
    this.onerror({ error });
    if (close) this.onclose({ code: 1006, reason: "" });
  }
}

/** Stands in for the globals of a page; `fire` is the browser speaking. */
class FakePage {
  listeners = [];

  add = (type, listener) => void this.listeners.push({ type, listener });

  remove = (type, listener) => {
    this.listeners = this.listeners.filter((it) => it.type !== type || it.listener !== listener);
  };

  fire(type) {
    for (const it of [...this.listeners]) if (it.type === type) it.listener({ type });
  }
}

/** Everything a test can script, installed over the globals until restore(). */
class World {
  clock = new FakeClock();
  sockets = [];
  random = 0.5;
  requests = [];
  /** How a GET is answered; by default, as without a network. */
  answer = () => Promise.reject(new TypeError("fetch failed"));
  #undo = [];

  constructor() {
    globalThis.setTimeout = this.clock.setTimeout;
    globalThis.clearTimeout = this.clock.clearTimeout;
    Date.now = () => this.clock.now;
    Math.random = () => this.random;
    const { sockets } = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(url, protocols);
        sockets.push(this);
      }
    };
    this.fetch = (url, init) => {
      this.requests.push({ url, init });
      return this.answer(url, init);
    };
  }

  /** What a Hubbub is given so that it lives in this world. */
  options(more = {}) {
    return { WebSocket: this.WebSocket, fetch: this.fetch, ...more };
  }

  /** The newest socket. */
  get socket() {
    return this.sockets.at(-1);
  }

  /** Put `value` under `name` among the globals until the test ends. */
  define(name, value) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    this.#undo.push(() => {
      delete globalThis[name];
      if (before) Object.defineProperty(globalThis, name, before);
    });
  }

  /** Make it a page at `href`. */
  page(href = "https://example.test/room/1?x=y#top") {
    const page = new FakePage();
    page.document = { visibilityState: "visible" };
    this.define("location", { href });
    this.define("document", page.document);
    this.define("addEventListener", page.add);
    this.define("removeEventListener", page.remove);
    return page;
  }

  restore() {
    for (const undo of this.#undo.reverse()) undo();
    globalThis.setTimeout = real.setTimeout;
    globalThis.clearTimeout = real.clearTimeout;
    Date.now = real.now;
    Math.random = real.random;
  }
}

/** A test that gets a world of its own. */
export const check = (name, body) =>
  test(name, async () => {
    const world = new World();
    try {
      await body(world);
    } finally {
      world.restore();
    }
  });

/** Note every event of `hub` as [name, ...details]. */
export const record = (hub, ...names) => {
  const log = [];
  for (const name of names) hub.on(name, (...details) => log.push([name, ...details]));
  return log;
};

/** What follows each refusal, failure and close code. */
export const rows = JSON.parse(readFileSync(new URL("../../refusals.json", import.meta.url), "utf8"));

/** An HTTP answer with a JSON body. */
export const reply = (status, body = {}, headers = {}) =>
  Promise.resolve(new Response(status === 204 ? null : JSON.stringify(body), { status, headers }));
