/** The page at /channels: rooms by the Centrifuge SDK, a wire that can be cut, and what that costs. */

import { $, $$, bubble, coloured, compose, element, onRestart, shortTime, watch, Log } from "./page.js";
import { Sdk } from "./sdk.js";
import { Outage } from "./outage.js";
import { Timeline } from "./timeline.js";

const PAGE = 30;
const SHOWN_NAMES = 40;
const TYPING_MS = 4000;
const tabs = new Map($$("[data-channel]").map((tab) => [tab.dataset.channel, tab]));
const TICKER = [...tabs.keys()].at(-1);

let name = $("#username").value || sessionStorage.getItem("channels-name") || "";
const sdk = new Sdk(() => (name ? { username: name } : {}));
const timeline = new Timeline($("#log"));
const trace = new Log($("#trace"), 6);
const outage = new Outage(sdk.wire, $("#outage").dataset.cutS * 1000, TICKER);
let shown = null;

/** One channel: its room, who is in it, and who is typing there. */
class Channel {
  people = new Set();
  typing = new Map();
  #typing = null;
  #asked = null;

  constructor(name) {
    this.name = name;
    const { room, typing } = tabs.get(name).dataset;
    this.subscription = sdk.centrifuge.newSubscription(room);
    if (typing) this.#typing = sdk.centrifuge.newSubscription(typing);
    this.#listen();
    outage.follow(this);
    this.#typing?.subscribe();
    this.subscription.subscribe();
  }

  get isShown() {
    return this === shown;
  }

  /** Leave for good: its subscription, what it remembers and its listeners. */
  leave() {
    outage.forget(this);
    for (const each of [this.subscription, this.#typing]) {
      if (!each) continue;
      each.removeAllListeners();
      sdk.centrifuge.removeSubscription(each);
    }
    for (const timer of this.typing.values()) clearTimeout(timer);
  }

  /** Read a page of what was said, the newest first. */
  async history(since) {
    const page = await this.subscription.history({ limit: PAGE, reverse: true, since });
    return page.publications;
  }

  #listen() {
    this.subscription.on("subscribed", (context) => this.#subscribed(context));
    this.subscription.on("publication", ({ data, offset }) => {
      // The place in the history is the number, whichever worker of the server has published it.
      const isLate = outage.takes(this, { number: offset });
      this.#stopsTyping(data.name);
      if (this.isShown) show(data, offset, isLate);
    });
    this.subscription.on("join", ({ info }) => this.#changes((people) => people.add(info.user)));
    this.subscription.on("leave", ({ info }) => this.#changes((people) => people.delete(info.user)));
    this.subscription.on("error", ({ error }) => timeline.note(`Refused: ${error.message}.`));
    this.#typing?.on("publication", ({ data }) => this.#types(data.name));
  }

  async #subscribed({ wasRecovering, recovered, streamPosition }) {
    this.epoch = streamPosition?.epoch;
    const isWhole = wasRecovering && recovered;
    outage.subscribed(this, isWhole);
    if (wasRecovering && !recovered && this.isShown)
      timeline.note("What was missed is not kept any more.");
    try {
      await this.#askWhoIsHere();
      const newest = await this.history();
      const atStart = newest.find(({ offset }) => offset <= streamPosition.offset);
      outage.knows(this, numberOf(newest[0]), numberOf(atStart));
      if (!isWhole && this.isShown) showPage(newest);
    } catch (error) {
      complain(error);
    }
  }

  /** What changes while the list is on its way is done to the list again: it is as new, or newer. */
  async #askWhoIsHere() {
    const since = (this.#asked = []);
    try {
      const { clients } = await this.subscription.presence();
      this.people = new Set(Object.values(clients).map(({ user }) => user));
      for (const change of since) change(this.people);
    } finally {
      if (this.#asked === since) this.#asked = null;
    }
    if (this.isShown) showPeople();
  }

  #changes(change) {
    this.#asked?.push(change);
    change(this.people);
    if (this.isShown) showPeople();
  }

  #types(who) {
    clearTimeout(this.typing.get(who));
    this.typing.set(who, setTimeout(() => this.#stopsTyping(who), TYPING_MS));
    if (this.isShown) showTyping();
  }

  #stopsTyping(who) {
    clearTimeout(this.typing.get(who));
    if (this.typing.delete(who) && this.isShown) showTyping();
  }
}

const numberOf = (publication) => publication?.offset ?? 0;

// What the SDK says of commands whose connection, or whose channel, is gone.
const GONE = [1, 2, 3, 4, 7];

/** Tell of a command that was refused. */
function complain({ code, message }) {
  if (!GONE.includes(code)) timeline.note(`Refused: ${message}.`);
}

function show(line, offset, isLate) {
  const item =
    shown === ticker
      ? element(
          "li",
          { class: "tick" },
          element("b", {}, `#${offset}`),
          element("span", { class: "text" }, line.text),
          element("time", { datetime: line.time }, shortTime(line.time)),
        )
      : bubble(line, line.name === name);
  if (isLate) {
    item.classList.add("late");
    $("time", item).before(element("span", { class: "badge" }, "recovered"));
  }
  timeline.insert(item, offset, offset);
}

/** Show a page of a history. What is shown already stays as it is. */
function showPage(publications) {
  for (const { data, offset } of publications) show(data, offset, false);
  $("#older").hidden = publications.length < PAGE;
}

function showPeople() {
  const names = [...shown.people].sort((one, other) => one.localeCompare(other));
  const people = names
    .slice(0, SHOWN_NAMES)
    .map((who) => coloured("li", who, { class: who === name ? "you" : undefined }, who));
  if (names.length > SHOWN_NAMES)
    people.push(element("li", { class: "more" }, `and ${names.length - SHOWN_NAMES} more`));
  $("#here").replaceChildren(...people);
  $("#here-count").textContent = names.length;
}

function showTyping() {
  const names = [...shown.typing.keys()];
  const who = names.length > 2 ? "Several people" : names.join(" and ");
  $("#typing").textContent = who && `${who} ${names.length > 1 ? "are" : "is"} typing …`;
}

const ticker = new Channel(TICKER);

/** Show a channel, and leave the one before. The ticker is never left: it is what is counted. */
function enter(channel) {
  if (shown && shown !== ticker) shown.leave();
  for (const [each, tab] of tabs) tab.setAttribute("aria-pressed", String(each === channel));
  sessionStorage.setItem("channel", channel);
  const isTicker = channel === TICKER;
  timeline.clear();
  $("#older").hidden = true;
  $("#log").setAttribute("aria-live", isTicker ? "off" : "polite"); // four a second are not to be heard
  $("#composer").hidden = $("#typing").hidden = isTicker;
  $("#listen-only").hidden = !isTicker;
  shown = isTicker ? ticker : new Channel(channel);
  showPeople();
  showTyping();
  if (isTicker) ticker.history().then((page) => shown === ticker && showPage(page), complain);
}

const before = sessionStorage.getItem("channel");
enter(tabs.has(before) ? before : tabs.keys().next().value);

for (const [channel, tab] of tabs)
  tab.addEventListener("click", () => channel === shown.name || enter(channel));

$("#older").addEventListener("click", async () => {
  const channel = shown;
  const offset = timeline.oldest ?? 1;
  try {
    const page = await channel.history({ offset, epoch: channel.epoch });
    if (channel.isShown) timeline.keepPlace(() => showPage(page));
  } catch (error) {
    complain(error);
  }
});

// What the server says to this page alone.
sdk.onType("you", (message) => {
  name = message.name;
  $("#username").value = name;
  sessionStorage.setItem("channels-name", name);
  showPeople();
});

onRestart(sdk, () => {
  outage.abandon();
  timeline.seal("The server restarted. It does not know the lines above.");
});

$("#who").addEventListener("submit", (event) => {
  event.preventDefault();
  name = $("#username").value.trim();
  if (!name) sessionStorage.removeItem("channels-name");
  sdk.reconnect();
});

let typedAt = 0;

compose(async (text) => {
  typedAt = 0;
  try {
    await sdk.centrifuge.rpc("say", { channel: shown.name, text });
  } catch (error) {
    if (error.code === 1) timeline.note("No answer came: it may have been said, or not.");
    else timeline.note(`Refused: ${error.message}.`);
  }
});

$("#text").addEventListener("input", () => {
  if (!$("#text").value || Date.now() - typedAt < TYPING_MS / 2 || sdk.state !== "open") return;
  typedAt = Date.now();
  sdk.centrifuge.send({ type: "typing", channel: shown.name }).catch(complain);
});

sdk.on("state", (state) => {
  $("#here-before").hidden = state === "open" || !shown.people.size;
  const text = { waiting: "cut", open: "connected" }[state] ?? state;
  const time = element("time", {}, shortTime(Date.now()));
  trace.add(element("li", { "data-state": state === "waiting" ? "lost" : state }, time, text));
});

sdk.on("wire", ({ refused }) => {
  $("#fact-refused").textContent = refused;
});

watch(sdk, () => outage.begin());
sdk.centrifuge.connect();
