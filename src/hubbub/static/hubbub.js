/**
 * Hubbub's JavaScript client: a WebSocket that comes back, in browsers, workers and Node.
 * Imports nothing. Types: hubbub.d.ts; guide: docs/javascript.md.
 */

/** Whether a client closed with `code` connects again; the rules are those of errors.py. */
export const shouldComeBack = (code) =>
  code < 3000 ? ![1000, 1002, 1003, 1007, 1008, 1010].includes(code) : code % 1000 < 500;

const EVENTS = ["state", "open", "message", "json", "close", "error", "drop", "stop"];
const WAKE_EVENTS = ["online", "pageshow", "visibilitychange"];
const HOUR_MS = 3600e3;

const socketUrl = (url) => {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.hash = "";
  return absolute.href.replace(/^http/, "ws");
};

/** A Retry-After header (seconds or a date) in milliseconds; 0 without one. */
const retryAfterMs = (value) => {
  const ms = isNaN(value) ? Date.parse(value) - Date.now() : value * 1000;
  return Math.min(Math.max(ms, 0) || 0, HOUR_MS);
};

/** What WebSocket.send() takes; everything but text and binary becomes JSON text. */
const encode = (data) => {
  if (
    typeof data === "string" ||
    data instanceof ArrayBuffer ||
    ArrayBuffer.isView(data) ||
    data instanceof Blob
  )
    return data;
  const text = JSON.stringify(data);
  if (text === undefined) throw new TypeError(`cannot send ${typeof data}`);
  return text;
};

/** The bytes as they are now: a caller may use its buffer again while the message waits. */
const snapshot = (data) => {
  if (ArrayBuffer.isView(data))
    return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  return data instanceof ArrayBuffer ? data.slice(0) : data;
};

export class Hubbub {
  #url;
  #options = {
    protocols: [],
    minDelayMs: 500,
    maxDelayMs: 20000,
    fixedDelayMs: null,
    stableMs: 5000,
    connectTimeoutMs: 10000,
    maxQueue: 100,
    maxQueueBytes: 1048576,
    binaryType: "arraybuffer",
    autoConnect: true,
    WebSocket: globalThis.WebSocket,
    fetch: globalThis.fetch,
  };
  #state = "closed";
  #stopped = null;
  #socket = null;
  #run = new AbortController(); // one for each attempt; aborted, its late events mean nothing
  #timer; // of the connect timeout, or of the delay
  #tries = 0;
  #delayMs = 0;
  #held = false; // the server named the delay (Retry-After)
  #openedAt = 0;
  #queue = [];
  #queuedBytes = 0;
  #listeners = new Map();
  #wantsJson = false;
  #events = [];

  constructor(url, options = {}) {
    for (const [name, value] of Object.entries(options))
      if (value !== undefined) this.#options[name] = value;
    if (!this.#options.WebSocket) throw new TypeError("pass a WebSocket in the options");
    if (typeof url !== "function") socketUrl(url); // a wrong URL throws here, not later
    this.#url = url;
    if (this.#options.autoConnect) this.connect();
  }

  /** "connecting", "open", "waiting" or "closed" (for good). */
  get state() {
    return this.#state;
  }

  /** How long this wait is; 0 in other states. */
  get delayMs() {
    return this.#delayMs;
  }

  /** Ends in a row since a connection lasted. */
  get tries() {
    return this.#tries;
  }

  /** Messages that wait for a connection. */
  get queued() {
    return this.#queue.length;
  }

  /** Why it ended for good, or null. */
  get stopped() {
    return this.#stopped;
  }

  /** The WebSocket of now, or null. */
  get socket() {
    return this.#socket;
  }

  /** Listen to an event; returns a function that ends that. */
  on(event, listener) {
    if (!EVENTS.includes(event)) throw new TypeError(`no event "${event}": ${EVENTS}`);
    if (event === "json") this.#wantsJson = true;
    return this.#listen(event, listener);
  }

  /** Listen to JSON objects whose "type" is `type`; returns a function that ends that. */
  onType(type, listener) {
    this.#wantsJson = true;
    return this.#listen(`type ${type}`, listener);
  }

  /** Send, or queue while there is no connection. False: this message goes nowhere. */
  send(data) {
    data = encode(data);
    if (this.#state === "closed") return false;
    if (this.#state === "open" && this.#socket.readyState === 1) {
      this.#socket.send(data);
      return true;
    }
    return this.#enqueue(data);
  }

  /** Start again after an end, or end a wait at once. */
  connect() {
    if (this.#state === "closed") {
      this.#stopped = null;
      this.#tries = 0;
      for (const name of WAKE_EVENTS) globalThis.addEventListener?.(name, this.#wake);
    } else if (this.#state !== "waiting") return;
    this.#attempt();
  }

  /** End for good. `code` is 1000 or 3000 to 4999. */
  close(code = 1000, reason = "") {
    if (this.#state === "closed") return;
    this.#socket?.close(code, reason);
    this.#end(code, reason, { code, reason, body: null });
  }

  /** Lose the connection as by accident. */
  cut() {
    if (this.#state === "open" || this.#state === "connecting") this.#end(1006, "cut");
  }

  /** A new connection at once, with a new token, say. */
  reconnect() {
    this.cut();
    this.connect();
  }

  async #attempt() {
    const { WebSocket, protocols, binaryType, connectTimeoutMs } = this.#options;
    const run = (this.#run = new AbortController());
    const { signal } = run;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(1006, "connect timeout"), connectTimeoutMs);
    this.#delayMs = 0;
    this.#emit(this.#become("connecting"));
    try {
      const given = typeof this.#url === "function" ? await this.#url() : this.#url;
      if (signal.aborted) return;
      const url = socketUrl(given);
      const socket = (this.#socket = new WebSocket(url, protocols));
      socket.binaryType = binaryType;
      socket.onopen = () => signal.aborted || this.#opened();
      socket.onmessage = ({ data }) => signal.aborted || this.#received(data);
      socket.onerror = ({ error }) => {
        if (signal.aborted) return;
        this.#emit(["error", error ?? new Error("the connection failed")]);
        if (this.#state === "connecting") socket.onclose(); // Node 22 says no more than this
      };
      socket.onclose = ({ code, reason } = { code: 1006, reason: "" }) => {
        if (signal.aborted) return;
        if (this.#state === "open") return this.#end(code, reason);
        socket.onclose = () => {}; // it has failed once
        this.#ask(signal, url, code, reason);
      };
    } catch (error) {
      if (signal.aborted) return;
      this.#emit(["error", error]);
      if (!signal.aborted) this.#end(1006, String(error));
    }
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#openedAt = Date.now();
    this.#emit(this.#become("open"), ["open"]); // what listeners send goes before the queue
    while (this.#queue.length && this.#socket?.readyState === 1) this.#socket.send(this.#dequeue());
  }

  #received(data) {
    const events = [["message", data]];
    if (this.#wantsJson && typeof data === "string" && /^\s*[[{]/.test(data))
      try {
        const value = JSON.parse(data);
        events.push(["json", value, data]);
        if (typeof value.type === "string") events.push([`type ${value.type}`, value]);
      } catch {
        // text that only looks like JSON
      }
    this.#emit(...events);
  }

  /** A browser hides why a handshake failed; a GET of the same URL is answered like it. */
  async #ask(signal, url, code, reason) {
    const { fetch, connectTimeoutMs } = this.#options;
    let stop, waitMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(code, reason), connectTimeoutMs);
    try {
      const answer = await fetch(url.replace(/^ws/, "http"), {
        credentials: "include",
        cache: "no-store",
        redirect: "manual",
        signal,
      });
      const { status } = answer;
      if (status === 401 || status === 403) {
        const body = await answer.json().catch(() => null);
        stop = { code: status, reason: `${body?.error ?? `HTTP ${status}`}`, body };
      } else if (status === 429 || status === 503)
        waitMs = retryAfterMs(answer.headers.get("retry-after"));
    } catch {
      // no network, no CORS, or no fetch: nothing was learnt
    }
    if (!signal.aborted) this.#end(code, reason, stop, waitMs);
  }

  /** The one way out of an attempt, a connection or a wait. */
  #end(code, reason, stop = null, waitMs = 0) {
    const { fixedDelayMs, maxDelayMs, minDelayMs, stableMs } = this.#options;
    const opened = this.#state === "open";
    const events = [];
    clearTimeout(this.#timer);
    this.#run.abort();
    this.#socket?.close();
    this.#socket = null;
    if (opened && !shouldComeBack(code)) stop ??= { code, reason, body: null };
    if (this.#state !== "waiting")
      events.push(["close", { code, reason, opened, comesBack: !stop }]);
    if (stop) {
      for (const name of WAKE_EVENTS) globalThis.removeEventListener?.(name, this.#wake);
      if (this.#queue.length) events.push(["drop", this.#queue.length]);
      this.#queue = [];
      this.#queuedBytes = this.#delayMs = 0;
      this.#stopped = stop;
    } else {
      if (opened && Date.now() - this.#openedAt >= stableMs) this.#tries = 0;
      const widest = Math.min(maxDelayMs, (minDelayMs || 500) * 2 ** ++this.#tries);
      const delay = fixedDelayMs ?? minDelayMs + Math.random() * (widest - minDelayMs);
      this.#held = waitMs > 0;
      this.#delayMs = Math.round(waitMs + delay);
      this.#timer = setTimeout(() => this.#attempt(), this.#delayMs);
    }
    events.push(this.#become(stop ? "closed" : "waiting"));
    if (stop) events.push(["stop", stop]);
    this.#emit(...events);
  }

  /** Coming online, or a page that is seen again, ends a wait; not one that the server named. */
  #wake = ({ type }) => {
    const unseen = type !== "online" && globalThis.document?.visibilityState === "hidden";
    if (this.#state === "waiting" && !this.#held && !unseen) this.#attempt();
  };

  #enqueue(data) {
    const { maxQueue, maxQueueBytes } = this.#options;
    const { size } = new Blob([data]);
    if (maxQueue < 1 || size > maxQueueBytes) return false;
    this.#queue.push([snapshot(data), size]);
    this.#queuedBytes += size;
    let dropped = 0;
    for (; this.#queue.length > maxQueue || this.#queuedBytes > maxQueueBytes; dropped++)
      this.#dequeue();
    if (dropped) this.#emit(["drop", dropped]);
    return true;
  }

  #dequeue() {
    const [data, size] = this.#queue.shift();
    this.#queuedBytes -= size;
    return data;
  }

  #listen(key, listener) {
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  #become(state) {
    this.#state = state;
    return ["state", state, this.#delayMs];
  }

  /** Deliver in order: what a listener causes comes after what it was told of. */
  #emit(...events) {
    const idle = !this.#events.length;
    this.#events.push(...events);
    for (; idle && this.#events.length; this.#events.shift()) {
      const [key, ...details] = this.#events[0];
      for (const listener of [...(this.#listeners.get(key) ?? [])])
        try {
          listener(...details);
        } catch (error) {
          queueMicrotask(() => {
            throw error; // the page hears of it, the connection does not
          });
        }
    }
  }
}
