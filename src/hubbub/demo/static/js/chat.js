/** The page at /chat: one conversation, with names, joins and leaves, and who is here. */

import {
  $, Log, Shown, bubble, coloured, compose, element, onRestart, openHub, shortTime,
} from "./page.js";

const log = new Log($("#log"));
const username = $("#username");
let name = username.value || sessionStorage.getItem("chat-name") || "";

const hub = openHub(() => (name ? { username: name } : {}));

const shown = new Shown(hub);

function show(line) {
  if (!shown.takes(line)) return;
  if (line.type === "said") log.add(bubble(line, line.name === name));
  else
    log.note(
      `${line.name} ${line.type} the chat `,
      element("time", { datetime: line.time }, shortTime(line.time)),
    );
}

onRestart(hub, () => log.note("The server restarted. It does not know the lines above."));

// After every return the server tells its last lines again; what is here already stays.
hub.onType("log", ({ you, lines }) => {
  name = you;
  username.value = you;
  sessionStorage.setItem("chat-name", you);
  const missed = shown.missed(lines);
  if (missed) log.note(`${missed} lines were said meanwhile.`);
  lines.forEach(show);
});

for (const type of ["said", "joined", "left"]) hub.onType(type, show);

// Who is here: once all of them, then what changes. In a room that is too large the number is all.
const SHOWN_NAMES = 40;
const here = new Set();
let unnamed = 0;

function showHere() {
  const names = [...here].sort((one, other) => one.localeCompare(other));
  const people = names
    .slice(0, SHOWN_NAMES)
    .map((who) => coloured("li", who, { class: who === name ? "you" : undefined }, who));
  const more = names.length - people.length + unnamed;
  if (more > 0) people.push(element("li", { class: "more" }, `and ${more} more`));
  $("#here").replaceChildren(...people);
  $("#here-count").textContent = here.size + unnamed;
}

hub.onType("present", ({ count, people }) => {
  here.clear();
  for (const { user } of people) here.add(user);
  unnamed = people.length ? 0 : count;
  showHere();
});

hub.onType("presence", ({ joined, left, paused }) => {
  for (const { user } of joined) here.add(user);
  for (const { user } of left) here.delete(user);
  if (paused === false) hub.reconnect(); // it is told again, so it is worth asking again
  showHere();
});

hub.onType("error", ({ message }) => log.note(`Refused: ${message}.`));

compose((text) => hub.send(text));

$("#who").addEventListener("submit", (event) => {
  event.preventDefault();
  name = username.value.trim();
  if (!name) sessionStorage.removeItem("chat-name");
  hub.reconnect();
});
