/** The page at /game: dots in an arena. One's own dot moves at once, the others when told. */

import { $, $$, coloured, element, openHub } from "./page.js";

const SEND_EVERY_MS = 40;
const SPEED = 0.6; // of the arena, in a second
const NUDGE = 0.015;
const KEYS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

const arena = $("#arena");
const players = new Map(); // id -> {id, name, hue, x, y, dot}
const held = new Set();
let name = sessionStorage.getItem("game-name") || "";
let id = null;
let room = sessionStorage.getItem("game-arena") || $("[data-arena]").dataset.arena;
let isOneOfMany = false;
let sent = 0;
let received = 0;
let sentAt = 0;
let isWaitingToSend = false;

const hub = openHub(() => (name ? { username: name } : {}));
const enter = () => hub.send({ type: "enter", arena: room });
const within = (place) => Math.min(1, Math.max(0, place));

function place(player) {
  player.dot.style.left = `${player.x * 100}%`;
  player.dot.style.top = `${player.y * 100}%`;
}

function add(player) {
  remove(player.id);
  const isMe = player.id === id;
  player.dot = element("div", { class: isMe ? "dot me" : "dot" }, element("span", {}, player.name));
  player.dot.style.setProperty("--hue", player.hue);
  place(player);
  arena.append(player.dot);
  players.set(player.id, player);
}

function remove(playerId) {
  players.get(playerId)?.dot.remove();
  players.delete(playerId);
}

function list() {
  const items = [...players.values()].map((player) => {
    const item = coloured("li", player.name, { class: player.id === id ? "you" : undefined }, player.name);
    item.style.setProperty("--hue", player.hue);
    return item;
  });
  $("#players").replaceChildren(...items);
  $("#player-count").textContent = players.size;
}

function clear() {
  for (const playerId of [...players.keys()]) remove(playerId);
}

hub.onType("you", (you) => {
  id = you.id;
  name = you.name;
  sessionStorage.setItem("game-name", name);
  enter();
});

hub.onType("arena", (message) => {
  room = message.arena;
  sessionStorage.setItem("game-arena", room);
  arena.dataset.arena = room;
  for (const tab of $$("[data-arena].tab"))
    tab.setAttribute("aria-pressed", String(tab.dataset.arena === room));
  clear();
  message.players.forEach(add);
  list();
});

hub.onType("joined", ({ player }) => {
  add(player);
  list();
  // Who comes by another worker of the server knows nobody of this one yet.
  const me = players.get(id);
  if (isOneOfMany && me) hub.send({ type: "move", x: me.x, y: me.y });
});

hub.onType("server", (server) => {
  isOneOfMany = server.is_one_of_many;
});

hub.onType("left", (message) => {
  remove(message.id);
  list();
});

hub.onType("moved", (message) => {
  $("#moves-received").textContent = ++received;
  let player = players.get(message.id);
  if (!player) {
    if (!message.player) return;
    add((player = message.player));
    list();
  }
  Object.assign(player, { x: message.x, y: message.y });
  place(player);
});

hub.on("close", () => {
  clear();
  list();
});

/** Send the last place, now or when enough time has passed since the one before. */
function sendSoon() {
  if (isWaitingToSend) return;
  isWaitingToSend = true;
  setTimeout(
    () => {
      isWaitingToSend = false;
      const me = players.get(id);
      if (!me || hub.state !== "open") return;
      sentAt = Date.now();
      hub.send({ type: "move", x: me.x, y: me.y });
      $("#moves-sent").textContent = ++sent;
    },
    Math.max(0, sentAt + SEND_EVERY_MS - Date.now()),
  );
}

function moveTo(x, y) {
  const me = players.get(id);
  if (!me) return;
  Object.assign(me, { x: within(x), y: within(y) });
  place(me);
  sendSoon();
}

function follow(event) {
  const box = arena.getBoundingClientRect();
  moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

arena.addEventListener("pointerdown", (event) => {
  arena.setPointerCapture(event.pointerId);
  arena.focus({ preventScroll: true });
  follow(event);
});
arena.addEventListener("pointermove", (event) => {
  if (arena.hasPointerCapture(event.pointerId)) follow(event);
});

let frameAt = 0;
function step(now) {
  // A frame's time may lie before the key that asked for it.
  const passed = Math.min(Math.max(now - frameAt, 0), 50) / 1000;
  frameAt = now;
  const me = players.get(id);
  if (me) {
    let [x, y] = [me.x, me.y];
    for (const key of held) {
      x += KEYS[key][0] * SPEED * passed;
      y += KEYS[key][1] * SPEED * passed;
    }
    moveTo(x, y);
  }
  if (held.size) requestAnimationFrame(step);
}

arena.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  const me = players.get(id);
  if (held.has(event.key) || !me) return;
  const [right, down] = KEYS[event.key];
  moveTo(me.x + right * NUDGE, me.y + down * NUDGE); // a short press moves too
  held.add(event.key);
  if (held.size > 1) return;
  frameAt = performance.now();
  requestAnimationFrame(step);
});
arena.addEventListener("keyup", (event) => held.delete(event.key));
arena.addEventListener("blur", () => held.clear());

for (const tab of $$(".tab[data-arena]"))
  tab.addEventListener("click", () => {
    room = tab.dataset.arena;
    enter();
    arena.focus({ preventScroll: true });
  });
