/**
 * Hubbub's JavaScript client: a WebSocket that comes back, in browsers, workers and Node.
 * Types: hubbub.d.ts; guide: docs/javascript.md.
 */

/** Whether a client closed with `code` comes back; the rules of errors.py. */
export const shouldComeBack = (code) =>
  code < 3000 ? ![1000, 1002, 1003, 1007, 1008, 1010].includes(code) : code % 1000 < 500;

const EVENTS = ["state", "open", "message", "json", "close", "error", "drop", "stop"];
const WAKE_EVENTS = ["online", "pageshow", "visibilitychange"];
const ABSOLUTE = /^(ws|http)s?:\/\/[^/\\]/i;
const IN_BETWEEN = "a WebSocket would be accepted; does a proxy or a subprotocol prevent it?";

// HTTP answers; see tests/refusals.json.
const TEMPORARY = [408, 409, 421, 423, 425, 429]; // and from 500 on
const DOUBTFUL = [404, 405, 426]; // and under 400: so many in a row are for good

const socketUrl = (url) => {
  const text = url?.href ?? url.trim();
  const { href } = new URL(text, globalThis.document?.baseURI ?? globalThis.location?.href);
  // new URL() reads "ws:/x" as "ws://x"
  if (!ABSOLUTE.test(/^[a-z][\w+.-]*:/i.test(text) ? text : href))
    throw new TypeError(`no WebSocket URL: ${text.split("?")[0]}`);
  return href.replace(/^http/, "ws").replace(/#.*/, "");
};

/** Retry-After (seconds or a date) in milliseconds, an hour at most. */
const retryAfterMs = (value) => {
  const ms = isNaN(value) ? Date.parse(value) - Date.now() : value * 1000;
  return Math.min(Math.max(ms, 0) || 0, 3600e3);
};

/** What is sent: text, a Blob, a copy of the bytes; the rest as JSON. */
const encode = (data) => {
  const kind = {}.toString.call(data).slice(8, -1);
  if (typeof data === "string" || kind === "Blob" || kind === "File") return data;
  if (/^(Shared)?ArrayBuffer$/.test(kind)) return new Uint8Array(data).slice();
  if (ArrayBuffer.isView(data))
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  const text = JSON.stringify(data); // "{}" of a Map or a Promise
  if (text === undefined || (text === "{}" && kind !== "Object"))
    throw new TypeError(`cannot send ${kind}`);
  return text;
};

const isRight = (name, value) =>
  name === "protocols"
    ? value.every((it, i) => /^[!#-'*+.^`|~\w-]+$/.test(it) && value.indexOf(it) === i)
    : !/Ms$|^max/.test(name) ||
      (typeof value === "number" && value >= 0 && (value <= 1e9 || /Q/.test(name))) ||
      (name === "fixedDelayMs" && value === null);

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
  #handed; // bytes given to it, and where its messages end
  #run = new AbortController(); // one for each attempt; aborted, its late events mean nothing
  #timer; // of the connect timeout, or of the delay
  #tries = 0;
  #doubtful = 0;
  #delayMs = 0;
  #held = false; // the server named the delay
  #openedAt = 0; // 0: not since connect()
  #queue = [];
  #queuedBytes = 0;
  #listeners = new Map();
  #wantsJson = false;
  #events = [];

  constructor(url, options = {}) {
    for (let [name, value] of Object.entries(options)) {
      if (value === undefined) continue;
      if (name === "protocols") value = [].concat(value ?? []);
      if (!(name in this.#options && isRight(name, value)))
        throw new TypeError(`wrong option ${name}: ${value}`);
      this.#options[name] = value;
    }
    const { autoConnect, connectTimeoutMs, maxDelayMs, minDelayMs, WebSocket } = this.#options;
    if (minDelayMs > maxDelayMs || connectTimeoutMs < 1)
      throw new TypeError("wrong: minDelayMs > maxDelayMs or connectTimeoutMs < 1");
    if (!WebSocket) throw new TypeError("pass a WebSocket in the options");
    if (typeof url !== "function") socketUrl(url); // throws if it is wrong
    this.#url = url;
    if (autoConnect) this.connect();
    if (this.#stopped) throw new TypeError(this.#stopped.reason); // from new WebSocket()
  }

  get state() {
    return this.#state;
  }

  get delayMs() {
    return this.#delayMs;
  }

  get tries() {
    return this.#tries;
  }

  get queued() {
    return this.#queue.length;
  }

  get stopped() {
    return this.#stopped;
  }

  get socket() {
    return this.#socket;
  }

  on(event, listener) {
    if (!EVENTS.includes(event)) throw new TypeError(`no event "${event}": ${EVENTS}`);
    if (event === "json") this.#wantsJson = true;
    return this.#listen(event, listener);
  }

  onType(type, listener) {
    this.#wantsJson = true;
    return this.#listen(`type ${type}`, listener);
  }

  send(data) {
    data = encode(data);
    if (this.#stopped) return false;
    if (this.#state !== "open" || this.#socket.readyState !== 1) return this.#enqueue(data);
    this.#hand(data);
    return true;
  }

  connect() {
    if (this.#state === "closed") {
      this.#stopped = null;
      this.#tries = this.#doubtful = this.#openedAt = 0;
      for (const name of WAKE_EVENTS) globalThis.addEventListener?.(name, this.#wake);
    } else if (this.#state !== "waiting") return;
    this.#attempt();
  }

  close(code = 1000, reason = "") {
    if (this.#stopped) return;
    this.#socket?.close(code, reason);
    this.#end(code, reason, { code, reason, body: null });
  }

  cut() {
    if (this.#state === "open" || this.#state === "connecting") this.#end(1006, "cut");
  }

  reconnect() {
    this.cut();
    if (this.#state === "waiting") this.#attempt();
  }

  drawDelay(tries) {
    const { fixedDelayMs, maxDelayMs, minDelayMs } = this.#options;
    const widest = Math.min(maxDelayMs, (minDelayMs || 500) * 2 ** tries);
    return fixedDelayMs ?? minDelayMs + Math.random() * (widest - minDelayMs);
  }

  async #attempt() {
    const { WebSocket, protocols, binaryType, connectTimeoutMs } = this.#options;
    const { signal } = (this.#run = new AbortController());
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(1006, "connect timeout"), connectTimeoutMs);
    this.#delayMs = 0;
    this.#emit(this.#become("connecting"));
    let url;
    try {
      const given = typeof this.#url === "function" ? await this.#url() : this.#url;
      if (signal.aborted) return;
      url = socketUrl(given);
      const socket = (this.#socket = new WebSocket(url, protocols));
      const handed = (this.#handed = { bytes: 0, ends: [] });
      socket.binaryType = binaryType;
      socket.onopen = () => signal.aborted || this.#opened();
      socket.onmessage = ({ data }) => signal.aborted || this.#received(data);
      socket.onerror = ({ error }) => {
        if (signal.aborted) return;
        this.#emit(["error", error ?? new Error("the connection failed")]);
        if (this.#state === "connecting") socket.onclose(); // Node 22 says no more than this
      };
      socket.onclose = ({ code, reason } = { code: 1006, reason: "" }) => {
        const gone = handed.bytes - socket.bufferedAmount;
        const lost = handed.ends.filter((end) => end > gone).length;
        if (lost) this.#emit(["drop", lost]); // after close() too
        if (signal.aborted) return;
        if (this.#state === "open")
          return this.#end(code, reason, null, retryAfterMs(/retry after (.+) s$/.exec(reason)?.[1]));
        socket.onclose = () => {}; // it has failed once
        this.#ask(signal, url, code, reason);
      };
    } catch (error) {
      if (signal.aborted) return;
      this.#emit(["error", error]);
      const reason = `${error}`;
      const stop = url && { code: 1006, reason, body: null }; // from new WebSocket()
      if (!signal.aborted) this.#end(1006, reason, stop);
    }
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#openedAt = Date.now();
    this.#emit(this.#become("open"), ["open"]); // what listeners send goes first
    while (this.#queue.length && this.#socket?.readyState === 1) {
      this.#hand(this.#queue[0][0]);
      this.#dequeue();
    }
  }

  /** Count what the socket is given until its last byte has left. */
  #hand(data) {
    const socket = this.#socket;
    const handed = this.#handed;
    const before = socket.bufferedAmount;
    while (handed.ends[0] <= handed.bytes - before) handed.ends.shift();
    socket.send(data);
    handed.ends.push((handed.bytes += socket.bufferedAmount - before));
  }

  #received(data) {
    const events = [["message", data]];
    if (this.#wantsJson && typeof data === "string" && /^\s*[[{]/.test(data))
      try {
        const value = JSON.parse(data);
        events.push(["json", value, data]);
        if (typeof value.type === "string") events.push([`type ${value.type}`, value]);
      } catch {} // only looks like JSON
    this.#emit(...events);
  }

  /** A browser hides why a handshake failed; a GET of the URL is answered like it. */
  async #ask(signal, url, code, reason) {
    const { fetch, connectTimeoutMs } = this.#options;
    let stop, waitMs, doubtful;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(code, reason), connectTimeoutMs);
    try {
      const answer = await fetch(url.replace(/^ws/, "http"), {
        credentials: "include",
        cache: "no-store",
        redirect: "manual",
        referrerPolicy: "origin", // the same origin gets no Origin header
        signal,
      });
      const status = answer.status || 300; // a browser hides which redirect it was
      const body = await answer.json().catch(() => null);
      reason = status === 426 ? IN_BETWEEN : `${body?.error ?? `HTTP ${status}`}`;
      const most = this.#openedAt ? 100 : 5;
      if (status < 400 || DOUBTFUL.includes(status)) doubtful = this.#doubtful + 1;
      if (doubtful ? doubtful >= most : status < 500 && !TEMPORARY.includes(status))
        stop = { code: status, reason, body };
      if ([429, 503].includes(status))
        waitMs = retryAfterMs(answer.headers.get("retry-after"));
    } catch {} // no network, CORS or fetch
    if (!signal.aborted) this.#end(code, reason, stop, waitMs, doubtful);
  }

  /** The one way out of an attempt, a connection or a wait. */
  #end(code, reason, stop = null, waitMs = 0, doubtful = 0) {
    const before = this.#state;
    const opened = before === "open";
    const events = [];
    this.#doubtful = doubtful;
    clearTimeout(this.#timer);
    this.#run.abort();
    this.#socket?.close();
    this.#socket = null;
    if (opened && !shouldComeBack(code)) stop ??= { code, reason, body: null };
    if (opened || before === "connecting")
      events.push(["close", { code, reason, opened, comesBack: !stop }]);
    if (stop) {
      for (const name of WAKE_EVENTS) globalThis.removeEventListener?.(name, this.#wake);
      if (this.#queue.length) events.push(["drop", this.#queue.length]);
      this.#queue = [];
      this.#queuedBytes = this.#delayMs = 0;
      this.#stopped = stop;
    } else {
      if (opened && Date.now() - this.#openedAt >= this.#options.stableMs) this.#tries = 0;
      this.#held = waitMs > 0;
      this.#delayMs = Math.round(waitMs + this.drawDelay(++this.#tries));
      this.#timer = setTimeout(() => this.#attempt(), this.#delayMs);
    }
    const state = this.#become(stop ? "closed" : "waiting");
    if (before !== this.#state) events.push(state);
    if (stop) events.push(["stop", stop]);
    this.#emit(...events);
  }

  /** Coming online, or a page seen again, ends a wait; not one that the server named. */
  #wake = ({ type }) => {
    const unseen = type !== "online" && globalThis.document?.visibilityState === "hidden";
    if (this.#state === "waiting" && !this.#held && !unseen) this.#attempt();
  };

  #enqueue(data) {
    const { maxQueue, maxQueueBytes } = this.#options;
    const { size } = new Blob([data]);
    if (maxQueue < 1 || size > maxQueueBytes) return false;
    this.#queue.push([data, size]);
    this.#queuedBytes += size;
    let dropped = 0;
    for (; this.#queue.length > maxQueue || this.#queuedBytes > maxQueueBytes; dropped++)
      this.#dequeue();
    if (dropped) this.#emit(["drop", dropped]);
    return true;
  }

  #dequeue() {
    this.#queuedBytes -= this.#queue.shift()[1];
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

  /** In order: what a listener causes comes after what it was told of. */
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
            throw error; // to the page
          });
        }
    }
  }
}
