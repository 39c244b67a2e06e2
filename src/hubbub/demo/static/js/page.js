/** What every page does: open its socket, show the state of the wire, build elements from text. */

import { Hubbub } from "/ws/hubbub.js";

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Make an element. Children are nodes or text; text is never read as markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== undefined && value !== false) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A colour for a name, always the same: a hue in degrees. */
export function hueOf(name) {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 3600;
  return hash % 360;
}

/** An element that CSS colours by name. */
export function coloured(tag, name, attributes = {}, ...children) {
  const made = element(tag, attributes, ...children);
  made.style.setProperty("--hue", hueOf(name));
  return made;
}

export const shortTime = (time) =>
  new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Open the page's socket. `query` gives the parameters of each attempt. */
export function openHub(query = () => ({})) {
  const url = () => {
    const parameters = new URLSearchParams(query()).toString();
    return document.body.dataset.socket + (parameters && `?${parameters}`);
  };
  // Two seconds at least, for people to see the wait; the default is half a second.
  const hub = new Hubbub(url, { minDelayMs: 2000 });
  watch(hub);
  return hub;
}

/** Show the state of a connection and let people cut it: a Hubbub, or what has its words. */
export function watch(hub, cut = () => hub.cut()) {
  showWire(hub, cut);
  onRestart(hub, () => {
    $("#restarted").textContent = `The server restarted at about ${shortTime(Date.now())}. ${RESTARTED}`;
    $("#restarted").hidden = false;
  });
  hub.onType("server", ({ worker, process, is_one_of_many }) => {
    const place = is_one_of_many ? `worker ${worker}, process ${process}` : `process ${process}`;
    $("#place").textContent = place;
    $("#place").title = is_one_of_many ? "Each worker has last lines and prices of its own; what is said crosses." : "";
  });
}

const RESTARTED = "It has forgotten what was before; this page has not.";

/** Call a function when a connection is to another run of the server than the one before. */
export function onRestart(hub, listener) {
  let run = null;
  hub.onType("server", (server) => {
    // One of many workers has forgotten nothing: the page has come to another.
    if (run !== null && server.run !== run && !server.is_one_of_many) listener();
    run = server.run;
  });
}

/** Knows which of a run's numbered lines are shown: after a return the server tells some again. */
export class Shown {
  #numbers = new Set();
  /** Of each log the last number: each worker of a server has one. */
  #last = new Map();

  constructor(hub, limit = 500) {
    this.limit = limit;
    onRestart(hub, () => {
      this.#numbers.clear();
      this.#last.clear();
    });
  }

  /** Whether a line is new; from now on it is not. */
  takes({ log, number }) {
    const key = `${log} ${number}`;
    if (this.#numbers.has(key)) return false;
    this.#numbers.add(key);
    this.#last.set(log, Math.max(number, this.#last.get(log) ?? 0));
    if (this.#numbers.size > this.limit) this.#numbers.delete(this.#numbers.values().next().value);
    return true;
  }

  /** How many lines between the last one shown and these nobody will tell any more. */
  missed(lines) {
    const { log, number } = lines.at(0) ?? { number: 0 };
    const last = this.#last.get(log);
    return last === undefined ? 0 : Math.max(0, number - last - 1);
  }
}

// On a narrow screen the navigation is a row that can be swept: begin it where we are.
$("nav [aria-current]").scrollIntoView({ block: "nearest", inline: "center" });

function showWire(hub, cut) {
  const wire = $("#wire");
  const text = $("#state");
  let timer;

  function show(state, delayMs = 0) {
    clearInterval(timer);
    wire.dataset.state = state;
    for (const control of $$("[data-online]")) control.disabled = state !== "open";
    $("#cut").hidden = state === "waiting" || state === "closed";
    $("#again").hidden = state !== "waiting" && state !== "closed";
    text.textContent = state === "open" ? "connected" : state;
    $("#state-aloud").textContent = text.textContent; // a countdown read aloud would never end
    if (state === "waiting") countDown(Date.now() + delayMs);
  }

  function countDown(until) {
    const tell = () => {
      const seconds = Math.max(0, until - Date.now()) / 1000;
      text.textContent = `back in ${seconds.toFixed(1)} s`;
    };
    tell();
    timer = setInterval(tell, 100);
  }

  hub.on("state", show);
  hub.on("stop", ({ code, reason }) => {
    text.textContent = `closed: ${reason || `code ${code}`}`;
  });
  $("#cut").addEventListener("click", cut);
  $("#again").addEventListener("click", () => hub.connect());
  show(hub.state, hub.delayMs);
}

/** A list that follows its end while the reader is there, and forgets its beginning. */
export class Log {
  constructor(list, limit = 200) {
    this.list = list;
    this.limit = limit;
  }

  add(item) {
    const { list } = this;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    list.append(item);
    while (list.children.length > this.limit) list.firstElementChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  note(...children) {
    this.add(element("li", { class: "note" }, ...children));
  }
}

/** One message of a log: who, what, when; in which room, where there are several. */
export function bubble({ name, text, time, room }, isMine) {
  return coloured(
    "li",
    name,
    { class: isMine ? "bubble mine" : "bubble" },
    element("span", { class: "name" }, name, room ? element("span", { class: "room" }, room) : ""),
    element("span", { class: "text" }, text),
    element("time", { datetime: new Date(time).toISOString() }, shortTime(time)),
  );
}

/** The form that sends a line: at most the bytes that the hub takes. */
export function compose(send) {
  const form = $("#composer");
  const input = $("#text");
  const bytes = $("#bytes");
  const limit = Number(form.dataset.maxBytes);

  function measure() {
    const size = new TextEncoder().encode(input.value.trim()).length;
    bytes.hidden = size < limit * 0.75;
    bytes.textContent = `${size} of ${limit} bytes`;
    bytes.classList.toggle("over", size > limit);
    input.setCustomValidity(size > limit ? `At most ${limit} bytes` : "");
  }

  input.addEventListener("input", measure);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || $("#send").disabled) return;
    send(text);
    input.value = "";
    measure();
    input.focus();
  });
}
