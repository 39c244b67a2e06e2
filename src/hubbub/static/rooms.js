/** Rooms over hubbub.js, in the Centrifuge protocol. Guide: docs/rooms-js.md. */
import { Hubbub } from "./hubbub.js";

const FRAME_CHARS = 16384; // of three bytes at most: a server takes 64 KiB
const LONGEST_MS = 2 ** 31 - 1; // a longer timer fires at once
const TIMEOUT = 1;
const LOST = 2;
const CLOSED = 3;
const TOO_MANY = 4;
const EXPIRED = 109;
const COMES_BACK = 2500; // unsubscribed with this or more: ask again
const STATE_LOST = 2502; // and from nowhere
const ALL_LOST = 3014; // closed: the token and all positions are worth nothing
const NOWHERE = { offset: 0, epoch: "_" }; // asked from here, all is missed

/** `code`: the server's from 100 on, or one of those above. */
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
  for (const listener of [...listenersOf.get(target).get(event)])
    try {
      listener(...details);
    } catch (error) {
      queueMicrotask(() => {
        throw error; // to the page
      });
    }
};

const sinceOf = ({ position }) => position && { recover: true, ...position };

const isAwaited = ({ byServer, state }) => byServer && state === "subscribing";

/** Behind an epoch's tilde is who the client was. */
const isBehind = ({ position }, { offset = 0, epoch = "" }) =>
  position && (position.offset !== offset || position.epoch.split("~")[0] !== epoch.split("~")[0]);

const checkSince = (since) => {
  const { offset, epoch } = since ?? {};
  if (Number.isSafeInteger(offset) && offset >= 0 && typeof epoch === "string") return;
  if (since && JSON.stringify(since) !== "{}") throw new TypeError("wrong since");
};

class Listened {
  constructor(events) {
    listenersOf.set(this, new Map(events.map((event) => [event, new Set()])));
  }

  on(event, listener) {
    const all = listenersOf.get(this).get(event);
    if (!all) throw new TypeError(`no event "${event}": ${[...listenersOf.get(this).keys()]}`);
    all.add(listener);
    return () => void all.delete(listener);
  }
}

class Room extends Listened {
  #held;
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
    checkSince(since);
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
  #who; // has the token; a late one has the old object
  #client = ""; // its name there, once open
  #pongs = false;
  #pingMs = 0;
  #pingTimer;
  #tokenTimer;
  #why = null; // what the next close says
  #stopped = null;
  #rooms = new Map();
  #lastId = 0;
  #asked = new Map(); // by id, until answered
  #outbox = []; // not sent yet
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
      if (!(value >= 0 && (value <= 1e9 || /Q/.test(name))))
        throw new TypeError(`wrong option ${name}: ${value}`);
    }
    this.#options = { ...numbers, getToken, data };
    this.#who = { token };
    const settings = { ...rest, maxQueue: 0, autoConnect: false };
    if (typeof url !== "function") new Hubbub(url, settings); // to throw
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
    return this.#isOpen && !this.#client ? "connecting" : this.#hub.state;
  }

  get #isOpen() {
    return this.#hub.state === "open";
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
    checkSince(since);
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
    if (this.#hub.stopped) {
      this.#stopped = null;
      this.#forgetToken(); // it may be another's
    }
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

  async #prepare(url) {
    const who = this.#who;
    who.token ??= await this.#options.getToken();
    return typeof url === "function" ? url() : url;
  }

  #forgetToken() {
    if (this.#options.getToken) this.#who = {};
  }

  /** Say who comes, and all rooms, in one message. */
  #connect() {
    const waiting = this.#outbox;
    this.#outbox = [];
    const subs = {};
    for (const held of this.#rooms.values())
      if (isAwaited(held) && held.position) subs[held.name] = sinceOf(held);
    const { data } = this.#options;
    const request = { ...this.#who, data, subs, name: "rooms.js" };
    this.#ask("connect", request, (error, answer) => {
      if (error) this.#refused(error);
      else this.#connected(answer);
    });
    for (const held of this.#rooms.values())
      if (held.state === "subscribing" && !held.byServer) this.#request(held);
    this.#flush();
    this.#outbox = waiting;
  }

  #connected({ client, ping, pong, data, subs, ...expiry }) {
    if (!client) return this.#end({ code: 1002, message: "not a route for rooms" }, "close");
    this.#client = client;
    this.#pongs = pong;
    this.#pingMs = ping ? ping * 1000 + this.#options.maxPingDelayMs : 0;
    this.#expectPing();
    this.#expectExpiry(expiry);
    emit(this, "state", "open", 0);
    if (this.#isOpen) emit(this, "open", { client, data });
    for (const channel in subs)
      if (this.#isOpen) this.#pushed({ channel, subscribe: subs[channel] });
    for (const held of this.#rooms.values()) if (isAwaited(held)) this.#awaitGiven(held);
    if (this.#client) this.#flush();
  }

  /** The server may give it before it takes a command. */
  #awaitGiven(held) {
    this.#ask("history", { channel: held.name, limit: 0 }, (error) => {
      if (error?.code === TIMEOUT) return this.#end(error);
      if (!this.#isOpen || !isAwaited(held)) return;
      if (!held.wanted) return this.#unsubscribed(held, 2000, "not given again");
      held.byServer = false;
      this.#request(held);
    });
  }

  #refused(error) {
    const expired = error.code === EXPIRED && this.#options.getToken;
    if (expired) this.#forgetToken();
    if (error.temporary || expired || error.code === TIMEOUT) this.#end(error);
    else this.#end(error, "close");
  }

  #end({ code, message }, how = "cut") {
    if (!this.#isOpen) return;
    this.#why = { code: code < 100 ? 1006 : code, reason: message };
    this.#hub[how]();
  }

  #expectPing() {
    clearTimeout(this.#pingTimer);
    if (this.#pingMs)
      this.#pingTimer = setTimeout(() => this.#end(new RoomsError(LOST, "no ping")), this.#pingMs);
  }

  #expectExpiry({ expires, ttl }) {
    clearTimeout(this.#tokenTimer);
    if (!expires || !this.#options.getToken) return;
    const ms = Math.min(Math.max(ttl || 0, 1) * 1000, LONGEST_MS);
    this.#tokenTimer = setTimeout(() => this.#refresh(1), ms);
  }

  async #refresh(tries) {
    const client = this.#client;
    const who = this.#who;
    const later = () => {
      if (client !== this.#client) return;
      this.#tokenTimer = setTimeout(() => this.#refresh(tries + 1), this.#hub.drawDelay(tries));
    };
    try {
      who.token = await this.#options.getToken();
    } catch (error) {
      emit(this, "error", error);
      return later();
    }
    if (client !== this.#client) return;
    this.#ask("refresh", who, (error, answer) => {
      if (!error) this.#expectExpiry(answer);
      else if (error.temporary || [TIMEOUT, EXPIRED].includes(error.code)) later();
      else this.#end(error, "close");
    });
  }

  #closed({ code, reason, comesBack }) {
    const opened = !!this.#client;
    const why = this.#why;
    this.#client = "";
    this.#pingMs = 0;
    clearTimeout(this.#pingTimer);
    clearTimeout(this.#tokenTimer);
    if (code === 3005 || code === ALL_LOST) this.#forgetToken();
    if (comesBack) this.#why = null;
    for (const held of this.#rooms.values()) {
      held.request = 0;
      clearTimeout(held.timer);
      if (code === ALL_LOST) held.position &&= NOWHERE;
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
    for (const [id] of this.#asked) this.#settle(id, new RoomsError(CLOSED, "closed"));
    emit(this, "stop", this.#stopped);
  }

  #command(method, params) {
    return new Promise((resolve, reject) => {
      if (this.#hub.stopped) throw new RoomsError(CLOSED, "closed");
      if (!this.#client && this.#outbox.length >= this.#options.maxQueue)
        throw new RoomsError(TOO_MANY, "too many commands wait for a connection");
      this.#ask(method, params, (error, answer) => (error ? reject(error) : resolve(answer)), true);
    });
  }

  /** `params` may be a function, called when it is sent. */
  #ask(method, params, done, isCommand = false) {
    const id = ++this.#lastId;
    const text = typeof params === "function" ? params : JSON.stringify(params);
    const { timeoutMs } = this.#options;
    const timer = setTimeout(() => this.#settle(id, new RoomsError(TIMEOUT, "no answer")), timeoutMs);
    const asked = { id, method, text, done, timer, isCommand };
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
    if (!this.#asked.delete(id)) return;
    clearTimeout(asked.timer);
    this.#outbox = this.#outbox.filter((each) => each !== asked);
    asked.done(error, reply?.[asked.method] ?? {});
  }

  #received(text) {
    this.#expectPing();
    for (const line of text.split("\n")) {
      if (!this.#isOpen) return; // a listener has ended it
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
    let held = this.#rooms.get(channel);
    if (subscribe) {
      if (!held) emit(this, "room", (held = this.#held(channel)).room);
      if (!this.#isOpen) return;
      if (held.request && isBehind(held, subscribe)) {
        this.#leave(held); // only an own request says from where
        return this.#request(held);
      }
      held.byServer = true;
      held.late = held.request || held.late;
      held.request = 0;
      return this.#subscribed(held, subscribe);
    }
    if (pub && held) this.#deliver(held, pub);
    if (unsubscribe && held?.state === "subscribed") {
      const { code, reason } = unsubscribe;
      if (code === STATE_LOST) held.position &&= NOWHERE;
      if (held.byServer || code < COMES_BACK) return this.#unsubscribed(held, code, reason);
      this.#become(held, "subscribing");
      if (held.state === "subscribing") this.#request(held);
    }
  }

  #held(name) {
    let held = this.#rooms.get(name);
    if (!held) {
      held = { name, state: "unsubscribed", position: null };
      held.room = new Room(held, this.#link);
      this.#rooms.set(name, held);
    }
    return held;
  }

  #become(held, state) {
    held.state = state;
    emit(held.room, "state", state);
  }

  #subscribe(held) {
    held.wanted = true;
    if (held.state !== "unsubscribed") return;
    held.byServer = false;
    held.tries = 0;
    held.state = "subscribing";
    if (this.#isOpen) this.#request(held);
    emit(held.room, "state", held.state);
  }

  #request(held) {
    clearTimeout(held.timer);
    const params = () => JSON.stringify({ channel: held.name, ...sinceOf(held) });
    const id = this.#ask("subscribe", params, (error, answer) => {
      if (held.request !== id)
        return error || held.late !== id || held.state !== "unsubscribed" || this.#leave(held);
      held.request = 0;
      if (!error) return this.#subscribed(held, answer);
      if (error.code === TIMEOUT) return this.#end(error);
      if (error.code < 100) return;
      emit(held.room, "error", error);
      if (held.state !== "subscribing" || held.request) return; // a listener has changed it
      if (!error.temporary) return this.#unsubscribed(held, error.code, error.message);
      held.timer = setTimeout(() => this.#request(held), this.#hub.drawDelay(++held.tries));
    });
    held.request = id;
  }

  #unsubscribe(held) {
    if (held.state === "unsubscribed") return;
    if (this.#isOpen) this.#leave(held);
    this.#unsubscribed(held, 0, "unsubscribe called");
  }

  #leave({ name }) {
    this.#ask("unsubscribe", { channel: name }, (error) => error && this.#end(error));
  }

  #unsubscribed(held, code, reason) {
    held.wanted = false;
    held.request = 0;
    clearTimeout(held.timer);
    this.#become(held, "unsubscribed");
    emit(held.room, "unsubscribed", { code, reason });
  }

  #subscribed(held, answer) {
    const { recoverable, offset = 0, epoch = "", publications = [] } = answer;
    const { recovered = false, was_recovering: wasRecovering = false } = answer;
    const position = recoverable ? { offset, epoch } : null;
    const isGap = !recovered && isBehind(held, answer);
    held.tries = 0;
    held.position = position;
    clearTimeout(held.timer);
    this.#become(held, "subscribed");
    this.#tell(held, "subscribed", { recovered, wasRecovering, position });
    if (isGap) this.#tell(held, "gap", { position });
    for (const each of publications) this.#deliver(held, each);
  }

  /** The position moves when all listeners were called. */
  #deliver(held, publication) {
    const { offset = null } = publication;
    const isTold = this.#tell(held, "message", { ...publication, offset });
    if (isTold && offset !== null && held.position) held.position = { ...held.position, offset };
  }

  /** Unless a listener has left it, or ended all. */
  #tell(held, event, detail) {
    const may = this.#isOpen && held.state === "subscribed";
    if (may) emit(held.room, event, detail);
    return may;
  }
}
