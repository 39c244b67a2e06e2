/** The page at /notifications: a form publishes by HTTP, the socket brings what was published. */

import { $, $$, Shown, element, onRestart, openHub, shortTime } from "./page.js";

const LIMIT = 50;
const KINDS = ["info", "success", "warning", "error"];
const list = $("#notifications");
const hub = openHub();

const shown = new Shown(hub);

function show(notification, isNew = true) {
  if (!shown.takes(notification)) return;
  const { type, message, time } = notification;
  const item = element(
    "li",
    { class: `notification kind-${KINDS.includes(type) ? type : "info"}${isNew ? " new" : ""}` },
    element("span", { class: "kind" }, type),
    element("span", { class: "text" }, message),
    element("time", { datetime: time }, shortTime(time)),
  );
  add(item);
  $("#count").textContent = $$(".notification", list).length;
  $("#empty").hidden = true;
}

function add(item) {
  list.prepend(item);
  while (list.children.length > LIMIT) list.lastElementChild.remove();
}

onRestart(hub, () => add(element("li", { class: "note" }, "The server restarted. It does not know what is below.")));

for (const kind of KINDS) hub.onType(kind, (notification) => show(notification));

hub.onType("recent", ({ notifications }) => {
  for (const notification of notifications) show(notification, false);
});

async function post(path, body) {
  const result = $("#result");
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body ?? {}),
    });
    const told = answer.status === 204 ? {} : await answer.json();
    if (!answer.ok) result.textContent = told.error ?? `HTTP ${answer.status}`;
    else if (told.delivered_to !== undefined)
      result.textContent = `Delivered to ${told.delivered_to} ${told.delivered_to === 1 ? "page" : "pages"}.`;
    return answer.ok;
  } catch {
    result.textContent = "The server does not answer.";
    return false;
  }
}

$("#publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = $("#message");
  if (await post("/notifications", { type: $("#type").value, message: message.value }))
    message.value = "";
});

for (const button of $$("[data-sample]"))
  button.addEventListener("click", () => post(`/notifications/samples/${button.dataset.sample}`));
