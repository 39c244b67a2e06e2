/** What a cut wire costs: it counts, by their numbers, the messages that came after, and says what is missing. */

import { $, element } from "./page.js";
import { Tally } from "./tally.js";

const CELLS = 60;
const PATIENCE_MS = 3000;

export class Outage {
  #wire;
  #cutMs;
  #drawn;
  /** Of each channel: the last number, and since the cut what came, whether it is back, what is the newest. */
  #followed = new Map();
  #state = "idle";
  #timer;
  #strip = $("#strip");

  /** `drawn` is the name of the channel whose messages are drawn. */
  constructor(wire, cutMs, drawn) {
    this.#wire = wire;
    this.#cutMs = cutMs;
    this.#drawn = drawn;
  }

  follow(channel) {
    this.#followed.set(channel, { last: null, tally: null, late: 0, isLate: false, newest: null });
  }

  forget(channel) {
    this.#followed.delete(channel);
  }

  /** Cut the wire. */
  begin() {
    clearTimeout(this.#timer);
    for (const each of this.#followed.values())
      Object.assign(each, { tally: new Tally(each.last), late: 0, newest: null });
    this.#become("cut", "The wire is cut", "Messages are published meanwhile, and none arrives.");
    this.#wire.cut(this.#cutMs);
  }

  /** A channel is back; what was missed comes at once, before anything else. */
  subscribed(channel, isWhole) {
    const followed = this.#followed.get(channel);
    if (this.#state === "cut") this.#become("counting", "Counting …", "What was missed is arriving.");
    followed.isLate = isWhole;
    queueMicrotask(() => (followed.isLate = false));
  }

  /** What a channel's history says: its newest number, which what comes must reach, and the one at the subscription. */
  knows(channel, newest, atStart) {
    const followed = this.#followed.get(channel);
    if (!followed) return;
    followed.newest = newest;
    followed.last ??= atStart;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#judge(true), PATIENCE_MS);
    this.#judge();
  }

  /** Count a message; tell whether it came late. */
  takes(channel, { number }) {
    const followed = this.#followed.get(channel);
    followed.tally?.take(number);
    if (followed.isLate) followed.late += 1;
    if (channel.name === this.#drawn) this.#draw(number, followed.last ?? number - 1, followed.isLate);
    followed.last = Math.max(followed.last ?? 0, number);
    this.#judge();
    return followed.isLate;
  }

  /** The server began anew: there is nothing to count by. */
  abandon() {
    for (const each of this.#followed.values())
      Object.assign(each, { last: null, tally: null });
    this.#strip.replaceChildren();
    if (this.#state !== "idle")
      this.#become("idle", "The server restarted", "Its numbers begin anew: there is nothing to count by.");
  }

  /** Say what is missing once all has come that must; of what does not come, when it is late. */
  #judge(isLate = false) {
    const all = [...this.#followed.values()].filter(({ tally }) => tally);
    if (this.#state !== "counting" || all.some(({ newest }) => newest === null)) return;
    if (!isLate && all.some(({ tally, newest }) => (tally.last ?? 0) < newest)) return;
    const sum = (of) => all.reduce((total, each) => total + of(each), 0);
    const missed = sum(({ tally, newest }) => tally.missed(newest));
    const twice = sum(({ tally }) => tally.twice);
    const late = sum((each) => each.late);
    const why = `${late} came late. Counted by the numbers in the messages.`;
    this.#become(missed || twice ? "bad" : "good", `${missed} missed, ${twice} twice`, why);
    $("#fact-recovered").textContent = late;
  }

  #become(state, verdict, why) {
    this.#state = state;
    $("#outage").dataset.state = state;
    $("#verdict").textContent = verdict;
    $("#verdict-why").textContent = why;
  }

  /** Draw a bar for a message, and hollow ones for those between it and the one before. */
  #draw(number, last, isLate) {
    const strip = this.#strip;
    for (let missing = Math.max(last, number - CELLS) + 1; missing < number; missing += 1)
      strip.append(element("i", { class: "missing" }));
    if (number > last) strip.append(element("i", { class: isLate ? "late" : undefined }));
    while (strip.children.length > CELLS) strip.firstElementChild.remove();
    $("#fact-last").textContent = `#${number}`;
  }
}
