/** The page at /chat: one conversation, with names, joins and leaves. */

import { $, Log, bubble, compose, element, openHub, shortTime } from "./page.js";

const log = new Log($("#log"));
const username = $("#username");
let name = username.value || sessionStorage.getItem("chat-name") || "";

const hub = openHub(() => (name ? { username: name } : {}));

function show(line) {
  if (line.type === "said") {
    log.add(bubble(line.name, line.text, line.time, line.name === name));
    return;
  }
  const time = element("time", { datetime: line.time }, shortTime(line.time));
  log.add(element("li", { class: "note" }, `${line.name} ${line.type} the chat `, time));
}

// After every return the hub tells the last lines again, so nothing of them is missed.
hub.onType("log", ({ you, lines }) => {
  name = you;
  username.value = you;
  sessionStorage.setItem("chat-name", you);
  log.clear();
  lines.forEach(show);
});

for (const type of ["said", "joined", "left"]) hub.onType(type, show);

compose((text) => hub.send(text));

$("#who").addEventListener("submit", (event) => {
  event.preventDefault();
  name = username.value.trim();
  if (!name) sessionStorage.removeItem("chat-name");
  hub.reconnect();
});
