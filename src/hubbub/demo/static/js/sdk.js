/** The Centrifuge SDK behind what the other pages know of a connection: states, messages by type, a cut. */

import { Wire } from "./wire.js";

const STATES = { connecting: "connecting", connected: "open", disconnected: "closed" };
// The script before this module has put it there: it is the file that comes with the SDK, as it is.
const { Centrifuge } = globalThis;

export class Sdk {
  #listeners = new Map();
  state = "connecting";
  wire = new Wire();

  /** `data` gives what the connect command carries, at each attempt. */
  constructor(data) {
    const url = new URL(document.body.dataset.socket, location.href.replace(/^http/, "ws"));
    this.centrifuge = new Centrifuge(url.href, {
      websocket: this.wire.WebSocket,
      getData: async () => data(),
      minReconnectDelay: 200,
      maxReconnectDelay: 1000, // so that the page is soon back when the wire is
    });
    this.centrifuge.on("state", () => this.#look());
    this.centrifuge.on("disconnected", ({ code, reason }) => this.#emit("stop", { code, reason }));
    this.centrifuge.on("message", ({ data: message }) => this.#emit(`:${message?.type}`, message));
    this.wire.onchange = () => {
      this.#emit("wire", this.wire);
      this.#look();
    };
  }

  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }

  onType(type, listener) {
    this.on(`:${type}`, listener);
  }

  get delayMs() {
    return this.wire.mendedAt && this.wire.mendedAt - Date.now();
  }

  /** Connect now: a wire that is cut is mended. */
  connect() {
    this.wire.mend();
    this.centrifuge.connect();
  }

  /** Connect anew, to be somebody else. */
  reconnect() {
    this.centrifuge.disconnect();
    this.centrifuge.connect();
  }

  #look() {
    const state = this.wire.mendedAt ? "waiting" : STATES[this.centrifuge.state];
    if (state === this.state) return;
    this.state = state;
    this.#emit("state", state, this.delayMs);
  }

  #emit(event, ...details) {
    for (const listener of this.#listeners.get(event) ?? []) listener(...details);
  }
}
