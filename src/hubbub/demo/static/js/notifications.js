/** The page at /notifications: a form publishes by HTTP, the socket brings what was published. */

import { $, $$, element, openHub, shortTime } from "./page.js";

const LIMIT = 50;
const KINDS = ["info", "success", "warning", "error"];
const list = $("#notifications");
const hub = openHub();

function show({ type, message, time }, isNew = true) {
  const item = element(
    "li",
    { class: `notification kind-${KINDS.includes(type) ? type : "info"}${isNew ? " new" : ""}` },
    element("span", { class: "kind" }, type),
    element("span", { class: "text" }, message),
    element("time", { datetime: time }, shortTime(time)),
  );
  list.prepend(item);
  while (list.children.length > LIMIT) list.lastElementChild.remove();
  count();
}

function count() {
  $("#count").textContent = list.children.length;
  $("#empty").hidden = list.children.length > 0;
}

for (const kind of KINDS) hub.onType(kind, (notification) => show(notification));

hub.onType("recent", ({ notifications }) => {
  list.replaceChildren();
  for (const notification of notifications) show(notification, false);
  count();
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
