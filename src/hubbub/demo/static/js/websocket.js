/** The page at /websocket: lines, rooms, who is online, and the life of the connection. */

import { $, $$, Log, bubble, coloured, compose, element, onRestart, openHub, shortTime } from "./page.js";

const log = new Log($("#log"));
const trace = new Log($("#trace"), 6);
let name = $("#log").dataset.username || sessionStorage.getItem("name") || "";
let room = sessionStorage.getItem("room") || "lobby";
let told = null; // the room that the log last named as ours
let received = 0;
let sent = 0;
let opened = 0;
let lostAt = 0;

const hub = openHub(() => ({ room, ...(name && { username: name }) }));

function traced(state, text) {
  trace.add(
    element("li", { "data-state": state }, element("time", {}, shortTime(Date.now())), text),
  );
}

hub.on("message", () => {
  $("#fact-received").textContent = ++received;
});

hub.onType("said", (line) => log.add(bubble(line, line.name === name)));

onRestart(hub, () => log.note("The server restarted."));

hub.onType("you", (message) => {
  name = message.name;
  sessionStorage.setItem("name", name);
  $("#fact-name").textContent = name;
});

hub.onType("entered", (message) => {
  room = message.room;
  sessionStorage.setItem("room", room);
  for (const tab of $$("[data-room]"))
    tab.setAttribute("aria-pressed", String(tab.dataset.room === room));
  if (room !== told) log.note(`You are in the ${room}.`);
  told = room;
});

hub.onType("online", ({ count, names }) => {
  const people = names.map((person) =>
    coloured(
      "li",
      person.name,
      { class: person.name === name ? "you" : undefined },
      person.name,
      person.times > 1 ? element("span", { class: "times" }, `×${person.times}`) : "",
    ),
  );
  const unnamed = count - names.reduce((sum, person) => sum + person.times, 0);
  if (unnamed > 0) people.push(element("li", { class: "more" }, `and ${unnamed} more`));
  $("#online").replaceChildren(...people);
  $("#online-count").textContent = count;
});

hub.onType("error", ({ message }) => log.note(`Refused: ${message}.`));

hub.on("open", () => {
  if (opened++) {
    $("#fact-returns").textContent = opened === 2 ? "once" : `${opened - 1} times`;
    log.note(`Connected again after ${((Date.now() - lostAt) / 1000).toFixed(1)} seconds.`);
  }
});

hub.on("close", ({ code, reason, opened: wasOpen }) => {
  traced("lost", `${wasOpen ? "lost" : "failed"} (${code}${reason && `, ${reason}`})`);
  if (!wasOpen) return;
  lostAt = Date.now();
  log.note(`The connection was lost (${code}).`);
  $("#online").replaceChildren();
  $("#online-count").textContent = 0;
});

hub.on("stop", ({ reason }) => log.note(`It will not come back${reason && `: ${reason}`}.`));

function showState(state, delayMs) {
  $("#fact-state").textContent = state === "waiting" ? `waiting ${(delayMs / 1000).toFixed(1)} s` : state;
  traced(state, state === "waiting" ? `waiting ${(delayMs / 1000).toFixed(1)} s` : state);
  const bar = $("#countdown");
  for (const animation of bar.getAnimations()) animation.cancel();
  if (state === "waiting")
    bar.animate([{ transform: "scaleX(1)" }, { transform: "scaleX(0)" }], {
      duration: delayMs,
      fill: "forwards",
    });
}

hub.on("state", showState);
showState(hub.state, hub.delayMs);

for (const tab of $$("[data-room]"))
  tab.addEventListener("click", () => hub.send({ type: "enter", room: tab.dataset.room }));

compose((text) => {
  if (hub.send(text)) $("#fact-sent").textContent = ++sent;
});
