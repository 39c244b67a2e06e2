/** The page at /chat: one conversation, with names, joins and leaves. */

import { $, Log, Shown, bubble, compose, element, onRestart, openHub, shortTime } from "./page.js";

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

hub.onType("error", ({ message }) => log.note(`Refused: ${message}.`));

compose((text) => hub.send(text));

$("#who").addEventListener("submit", (event) => {
  event.preventDefault();
  name = username.value.trim();
  if (!name) sessionStorage.removeItem("chat-name");
  hub.reconnect();
});
