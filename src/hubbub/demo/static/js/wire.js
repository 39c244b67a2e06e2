/** A wire that can be cut: a WebSocket class for a client that takes one, and the switch to it. */

/** Cutting it loses every connection as by accident (close code 1006), and makes no new one until it is mended. */
export class Wire {
  #sockets = new Set();
  #timer;
  /** How many attempts to connect were in vain since the last cut. */
  refused = 0;
  /** When it will be mended, in milliseconds since 1970; 0 while it is whole. */
  mendedAt = 0;
  onchange = () => {};

  constructor(WebSocket = globalThis.WebSocket) {
    const wire = this;
    /** What the client takes for a WebSocket. */
    this.WebSocket = class extends CuttableSocket {
      constructor(url, protocols) {
        super(wire.mendedAt ? null : new WebSocket(url, protocols));
        if (wire.mendedAt) wire.refused += 1;
        wire.#sockets.add(this);
        this.forget = () => wire.#sockets.delete(this);
        if (wire.mendedAt) setTimeout(() => this.cut(), 0);
        wire.onchange();
      }
    };
  }

  cut(forMs) {
    this.mendedAt = Date.now() + forMs;
    this.refused = 0;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.mend(), forMs);
    this.onchange();
    for (const socket of [...this.#sockets]) socket.cut();
  }

  mend() {
    clearTimeout(this.#timer);
    this.mendedAt = 0;
    this.onchange();
  }
}

/** A socket around a real one, or around none: then it never opens. */
class CuttableSocket {
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;
  forget = () => {};
  #socket;
  #isOver = false;

  constructor(socket) {
    this.#socket = socket;
    for (const kind of ["open", "message", "error", "close"])
      socket?.addEventListener(kind, (event) => this.#pass(kind, event));
  }

  get readyState() {
    if (this.#isOver) return 3;
    return this.#socket ? this.#socket.readyState : 0;
  }

  send(data) {
    if (!this.#isOver) this.#socket?.send(data);
  }

  close(code, reason) {
    if (!this.#isOver) this.#socket?.close(code, reason);
  }

  /** Be lost: what is on its way arrives no more. The real one is closed, for the server's sake. */
  cut() {
    if (this.#isOver) return;
    this.#pass("error", new Event("error"));
    this.#pass("close", Object.assign(new Event("close"), { code: 1006, reason: "", wasClean: false }));
    this.#socket?.close();
  }

  #pass(kind, event) {
    if (this.#isOver) return;
    if (kind === "close") {
      this.#isOver = true;
      this.forget();
    }
    this[`on${kind}`]?.(event);
  }
}
