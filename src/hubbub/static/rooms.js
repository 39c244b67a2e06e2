/**
 * Rooms over hubbub.js: subscriptions that miss nothing, commands, tokens. It speaks the Centrifuge
 * protocol (JSON) with a route of the dialect "centrifuge". Types: rooms.d.ts; guide: docs/rooms-js.md.
 */
import { Hubbub } from "./hubbub.js";

const FRAME_CHARS = 16384; // a server takes 64 KiB, and a character has three bytes at most
const LONGEST_MS = 2 ** 31 - 1; // a longer timer would fire at once
const TIMEOUT = 1;
const LOST = 2;
const CLOSED = 3;
const TOO_MANY = 4;
const EXPIRED = 109;
const COMES_BACK = 2500; // unsubscribed with this or more: subscribe again
const STATE_LOST = 2502; // and from nowhere

/** Why a command failed: the server's number (100 and more), or one of those above. */
export class RoomsError extends Error {
  constructor(code, message, temporary = false) {
    super(message);
    this.name = "RoomsError";
    this.code = code;
    this.temporary = temporary;
  }
}

const listenersOf = new WeakMap();

const emit = (target, event, ...details) => {
  for (const listener of [...listenersOf.get(target)[event]])
    try {
      listener(...details);
    } catch (error) {
      queueMicrotask(() => {
        throw error; // for the page to hear of
      });
    }
};

class Listened {
  constructor(events) {
    listenersOf.set(this, Object.fromEntries(events.map((event) => [event, new Set()])));
  }

  on(event, listener) {
    const all = listenersOf.get(this);
    if (!Object.hasOwn(all, event)) throw new TypeError(`no event "${event}": ${Object.keys(all)}`);
    all[event].add(listener);
    return () => void all[event].delete(listener);
  }
}

class Room extends Listened {
  #held; // what Rooms knows of it
  #link;

  constructor(held, link) {
    super(["state", "subscribed", "message", "gap", "unsubscribed", "error"]);
    this.#held = held;
    this.#link = link;
  }

  get name() {
    return this.#held.name;
  }

  get state() {
    return this.#held.state;
  }

  get position() {
    return this.#held.position;
  }

  subscribe() {
    this.#link.subscribe(this.#held);
  }

  unsubscribe() {
    this.#link.unsubscribe(this.#held);
  }

  async publish(data) {
    await this.#link.command("publish", { channel: this.name, data });
  }

  async history({ limit = -1, since, reverse } = {}) {
    const request = { channel: this.name, limit, since, reverse };
    const { publications = [], offset = 0, epoch = "" } = await this.#link.command("history", request);
    return { publications, position: { offset, epoch } };
  }

  async presence() {
    return (await this.#link.command("presence", { channel: this.name })).presence;
  }
}

export class Rooms extends Listened {
  #hub;
  #options;
  #token;
  #client = ""; // the server's name for this connection, once it has connected
  #pongs = false;
  #pingMs = 0;
  #pingTimer;
  #tokenTimer;
  #why = null; // what the next close and stop say, where a socket's code says less
  #stopped = null;
  #rooms = new Map();
  #lastId = 0;
  #asked = new Map(); // commands that are not answered yet, by their ids
  #outbox = []; // those of them that wait for this turn's end, or for a connection
  #link = {
    subscribe: (held) => this.#subscribe(held),
    unsubscribe: (held) => this.#unsubscribe(held),
    command: (method, params) => this.#command(method, params),
  };

  constructor(url, options = {}) {
    super(["state", "open", "message", "room", "close", "error", "stop"]);
    const { token, getToken, data, timeoutMs, maxPingDelayMs, maxQueue, autoConnect, ...rest } = options;
    const numbers = { timeoutMs: 5000, maxPingDelayMs: 10000, maxQueue: 100 };
    for (const name of Object.keys(numbers)) {
      const value = (numbers[name] = options[name] ?? numbers[name]);
      if (!(value >= 0 && (value <= 1e9 || name === "maxQueue")))
        throw new TypeError(`wrong option ${name}: ${value}`);
    }
    this.#options = { ...rest, ...numbers, getToken, data };
    this.#token = token;
    const settings = { ...rest, maxQueue: 0, autoConnect: false };
    if (typeof url !== "function") new Hubbub(url, settings); // throws if it is wrong
    const hub = new Hubbub(getToken ? () => this.#prepare(url) : url, settings);
    this.#hub = hub;
    hub.on("state", (state, delayMs) => state === "open" || emit(this, "state", state, delayMs));
    hub.on("open", () => this.#connect());
    hub.on("message", (text) => this.#received(text));
    hub.on("error", (error) => emit(this, "error", error));
    hub.on("close", (close) => this.#closed(close));
    hub.on("stop", (stop) => this.#ended(stop));
    if (autoConnect ?? true) hub.connect();
    if (hub.stopped) throw new TypeError(hub.stopped.reason); // from new WebSocket()
  }

  get state() {
    const { state } = this.#hub;
    return state === "open" && !this.#client ? "connecting" : state;
  }

  get delayMs() {
    return this.#hub.delayMs;
  }

  get stopped() {
    return this.#stopped;
  }

  get client() {
    return this.#client;
  }

  room(name, { since } = {}) {
    const held = this.#held(name);
    if (since && held.state === "unsubscribed") held.position = since;
    return held.room;
  }

  async call(method, data) {
    return (await this.#command("rpc", { method, data })).data;
  }

  send(data) {
    const text = JSON.stringify({ send: { data } });
    if (!this.#client) return false;
    this.#flush(); // in the order of the calls
    return this.#hub.send(text);
  }

  connect() {
    if (this.#hub.state === "closed") this.#stopped = null;
    this.#hub.connect();
  }

  close(code, reason) {
    if (this.#client) this.#flush();
    this.#hub.close(code, reason);
  }

  cut() {
    this.#hub.cut();
  }

  reconnect() {
    this.#hub.reconnect();
  }

  // The connection

  /** Have a token, then the URL: before every attempt. */
  async #prepare(url) {
    this.#token ??= await this.#options.getToken();
    return typeof url === "function" ? url() : url;
  }

  /** Say who comes, and all rooms, in one message. */
  #connect() {
    const waiting = this.#outbox;
    this.#outbox = [];
    const subs = {};
    const held = [...this.#rooms.values()].filter(({ state }) => state === "subscribing");
    for (const { name, byServer, position } of held)
      if (byServer && position) subs[name] = { recover: true, ...position };
    const { data } = this.#options;
    const request = { token: this.#token, data, subs, name: "rooms.js" };
    this.#ask("connect", request, (error, answer) => {
      if (error) this.#refused(error);
      else this.#connected(answer);
    });
    for (const each of held) if (!each.byServer) this.#request(each);
    this.#flush();
    this.#outbox = waiting;
  }

  #connected({ client, ping, pong, data, subs, ...expiry }) {
    this.#client = client;
    this.#pongs = pong;
    this.#pingMs = ping ? ping * 1000 + this.#options.maxPingDelayMs : 0;
    this.#expectPing();
    this.#expectExpiry(expiry);
    emit(this, "state", "open", 0);
    emit(this, "open", { client, data });
    for (const channel in subs) this.#pushed({ channel, subscribe: subs[channel] });
    if (this.#client) this.#flush();
  }

  #refused(error) {
    const expired = error.code === EXPIRED && this.#options.getToken;
    if (expired) this.#token = undefined;
    if (error.temporary || expired || error.code === TIMEOUT) this.#lose(error);
    else if (error.code >= 100) this.#stop(error);
  }

  /** Lose the connection, and come back. */
  #lose({ code, message }) {
    this.#why = { code: code < 100 ? 1006 : code, reason: message };
    this.#hub.cut();
  }

  #stop({ code, message }) {
    this.#why = { code, reason: message };
    this.#hub.close();
  }

  #expectPing() {
    clearTimeout(this.#pingTimer);
    if (this.#pingMs)
      this.#pingTimer = setTimeout(() => this.#lose(new RoomsError(LOST, "no ping")), this.#pingMs);
  }

  #expectExpiry({ expires, ttl }) {
    clearTimeout(this.#tokenTimer);
    if (!expires || !this.#options.getToken) return;
    const ms = Math.min(Math.max(ttl || 0, 1) * 1000, LONGEST_MS);
    this.#tokenTimer = setTimeout(() => this.#refresh(1), ms);
  }

  async #refresh(tries) {
    const client = this.#client;
    const later = () => {
      if (client !== this.#client) return;
      this.#tokenTimer = setTimeout(() => this.#refresh(tries + 1), this.#drawDelay(tries));
    };
    try {
      this.#token = await this.#options.getToken();
    } catch (error) {
      emit(this, "error", error);
      return later();
    }
    if (!client || client !== this.#client) return;
    this.#ask("refresh", { token: this.#token }, (error, answer) => {
      if (!error) this.#expectExpiry(answer);
      else if (error.temporary || [TIMEOUT, EXPIRED].includes(error.code)) later();
      else if (error.code >= 100) this.#stop(error);
    });
  }

  /** The delay after so many failures in a row, as hubbub.js draws it. */
  #drawDelay(tries) {
    const { minDelayMs = 500, maxDelayMs = 20000, fixedDelayMs } = this.#options;
    const widest = Math.min(maxDelayMs, (minDelayMs || 500) * 2 ** tries);
    return fixedDelayMs ?? minDelayMs + Math.random() * (widest - minDelayMs);
  }

  #closed({ code, reason, comesBack }) {
    const opened = this.#client !== "";
    const why = this.#why;
    this.#client = "";
    this.#pingMs = 0;
    clearTimeout(this.#pingTimer);
    clearTimeout(this.#tokenTimer);
    if (code === 3005 && this.#options.getToken) this.#token = undefined; // it has expired
    if (comesBack) this.#why = null;
    for (const held of this.#rooms.values()) {
      held.request = 0;
      clearTimeout(held.timer);
      if (held.state === "subscribed") this.#become(held, "subscribing");
    }
    for (const [id, { sent, isCommand }] of this.#asked)
      if (sent || !isCommand) this.#settle(id, new RoomsError(LOST, "the connection was lost"));
    emit(this, "close", { code, reason, opened, comesBack, ...why });
  }

  #ended(stop) {
    this.#stopped = { ...stop, ...this.#why };
    this.#why = null;
    this.#outbox = [];
    for (const id of [...this.#asked.keys()]) this.#settle(id, new RoomsError(CLOSED, "closed"));
    emit(this, "stop", this.#stopped);
  }

  // Commands

  #command(method, params) {
    return new Promise((resolve, reject) => {
      if (this.#hub.stopped) throw new RoomsError(CLOSED, "closed");
      if (!this.#client && this.#outbox.length >= this.#options.maxQueue)
        throw new RoomsError(TOO_MANY, "too many commands wait for a connection");
      const done = (error, answer) => (error ? reject(error) : resolve(answer));
      this.#ask(method, params, done, true);
    });
  }

  /** Ask the server; `params` may be a function, for what is known only when it is sent. */
  #ask(method, params, done, isCommand = false) {
    const id = ++this.#lastId;
    const text = typeof params === "function" ? params : JSON.stringify(params);
    const { timeoutMs } = this.#options;
    const timer = setTimeout(() => this.#settle(id, new RoomsError(TIMEOUT, "no answer")), timeoutMs);
    const asked = { id, method, text, done, timer, isCommand, sent: false };
    this.#asked.set(id, asked);
    this.#outbox.push(asked);
    if (this.#client) queueMicrotask(() => this.#client && this.#flush());
    return id;
  }

  #flush() {
    let lines = "";
    for (const asked of this.#outbox.splice(0)) {
      const { id, method, text } = asked;
      const line = `{"id":${id},"${method}":${typeof text === "function" ? text() : text}}`;
      if (lines && lines.length + line.length > FRAME_CHARS) {
        this.#hub.send(lines);
        lines = "";
      }
      lines += (lines && "\n") + line;
      asked.sent = true;
    }
    if (lines) this.#hub.send(lines);
  }

  #settle(id, error, reply) {
    const asked = this.#asked.get(id);
    if (!asked) return;
    this.#asked.delete(id);
    clearTimeout(asked.timer);
    if (!asked.sent) this.#outbox = this.#outbox.filter((each) => each !== asked);
    asked.done(error, reply?.[asked.method] ?? {});
  }

  #received(text) {
    this.#expectPing();
    for (const line of text.split("\n")) {
      if (this.#hub.state !== "open") return; // a listener has ended it
      if (!line) continue;
      const { id, error, push, ...reply } = JSON.parse(line);
      if (push) this.#pushed(push);
      else if (error)
        this.#settle(id, new RoomsError(error.code, error.message, error.temporary));
      else if (id) this.#settle(id, null, reply);
      else if (this.#pongs) this.#hub.send("{}");
    }
  }

  #pushed({ channel, pub, subscribe, unsubscribe, message }) {
    if (message) return emit(this, "message", message.data);
    const isNew = !this.#rooms.has(channel);
    if (subscribe) {
      const held = this.#held(channel);
      held.byServer = true;
      held.request = 0;
      if (isNew) emit(this, "room", held.room);
      return this.#subscribed(held, subscribe);
    }
    const held = this.#rooms.get(channel);
    if (pub && held) this.#deliver(held, pub);
    if (unsubscribe && held?.state === "subscribed") {
      const { code, reason } = unsubscribe;
      if (code === STATE_LOST) held.position = null;
      if (held.byServer || code < COMES_BACK) return this.#unsubscribed(held, code, reason);
      this.#become(held, "subscribing");
      if (held.state === "subscribing") this.#request(held);
    }
  }

  // Rooms

  #held(name) {
    let held = this.#rooms.get(name);
    if (!held) {
      held = { name, state: "unsubscribed", position: null, byServer: false };
      Object.assign(held, { request: 0, tries: 0, timer: null, room: new Room(held, this.#link) });
      this.#rooms.set(name, held);
    }
    return held;
  }

  #become(held, state) {
    held.state = state;
    emit(held.room, "state", state);
  }

  #subscribe(held) {
    if (held.state !== "unsubscribed") return;
    held.byServer = false;
    held.tries = 0;
    held.state = "subscribing";
    if (this.#hub.state === "open") this.#request(held);
    emit(held.room, "state", held.state);
  }

  #request(held) {
    clearTimeout(held.timer);
    const params = () => {
      const recover = held.position ? { recover: true, ...held.position } : {};
      return JSON.stringify({ channel: held.name, ...recover });
    };
    const id = this.#ask("subscribe", params, (error, answer) => {
      if (held.request !== id) return; // it was left since, or the server was first
      held.request = 0;
      if (!error) return this.#subscribed(held, answer);
      if (error.code === TIMEOUT) return this.#lose(error);
      if (error.code < 100) return;
      emit(held.room, "error", error);
      if (held.state !== "subscribing" || held.request) return; // a listener has changed it
      if (!error.temporary) return this.#unsubscribed(held, error.code, error.message);
      held.timer = setTimeout(() => this.#request(held), this.#drawDelay(++held.tries));
    });
    held.request = id;
  }

  #unsubscribe(held) {
    if (held.state === "unsubscribed") return;
    if (this.#hub.state === "open")
      this.#ask("unsubscribe", { channel: held.name }, (error) => {
        if (error && ![LOST, CLOSED].includes(error.code)) this.#lose(error);
      });
    this.#unsubscribed(held, 0, "unsubscribe called");
  }

  #unsubscribed(held, code, reason) {
    held.request = 0;
    clearTimeout(held.timer);
    this.#become(held, "unsubscribed");
    emit(held.room, "unsubscribed", { code, reason });
  }

  #subscribed(held, answer) {
    const { recoverable, offset = 0, epoch = "", publications = [] } = answer;
    const { recovered = false, was_recovering: wasRecovering = false } = answer;
    const position = recoverable ? { offset, epoch } : null;
    held.tries = 0;
    held.position = position;
    this.#become(held, "subscribed");
    emit(held.room, "subscribed", { recovered, wasRecovering, position });
    if (wasRecovering && !recovered) emit(held.room, "gap", { position });
    for (const each of publications) this.#deliver(held, each);
  }

  /** The position moves when all listeners are done: one that fails in between has missed nothing. */
  #deliver(held, publication) {
    if (held.state !== "subscribed") return;
    const { offset = null } = publication;
    emit(held.room, "message", { ...publication, offset });
    if (offset !== null && held.position) held.position = { ...held.position, offset };
  }
}
