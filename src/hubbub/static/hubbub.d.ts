/**
 * Types of hubbub.js. Durations are milliseconds. They need neither the DOM library nor Node's
 * types: what only some projects have is taken from the globals where it is there.
 */

/** The instances of a global class, or `Fallback` where there is no such class. */
type OfGlobal<Globals, Fallback> = Globals extends { prototype: infer Instance }
  ? Instance
  : Fallback;

/** A Blob, as the project's other types know it. */
export type HubbubBlob = OfGlobal<
  typeof globalThis extends { Blob: infer Class } ? Class : null,
  { readonly size: number; readonly type: string; arrayBuffer(): Promise<ArrayBuffer> }
>;

/** A WebSocket, as the project's other types know it. */
export type HubbubSocket = OfGlobal<
  typeof globalThis extends { WebSocket: infer Class } ? Class : null,
  {
    readonly url: string;
    readonly protocol: string;
    readonly extensions: string;
    readonly readyState: number;
    readonly bufferedAmount: number;
  }
>;

/**
 * "connecting": an attempt is under way. "open": messages flow. "waiting": the next attempt comes
 * after `delayMs`. "closed": before the first `connect()`, or ended for good.
 */
export type HubbubState = "connecting" | "open" | "waiting" | "closed";

/**
 * What `send` takes. An object, number, boolean or null is sent as JSON text, except what JSON
 * would empty (a Map, a Promise): that is a TypeError.
 */
export type HubbubData =
  | string
  | ArrayBuffer
  | ArrayBufferView
  | HubbubBlob
  | object
  | number
  | boolean
  | null;

/** What arrives: text as a string, binary as `binaryType` says. */
export type HubbubMessage = string | ArrayBuffer | HubbubBlob;

/** An absolute ws:, wss:, http: or https: URL, or one relative to the page's base (`<base>`). */
export type HubbubUrl = string | { readonly href: string };

/** What of an HTTP answer is read. */
export interface HubbubAnswer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  json(): Promise<any>;
}

/** Durations are numbers from 0 to 1e9. A wrong option, or one of another name, is a TypeError. */
export interface HubbubOptions {
  /** WebSocket subprotocols. Default: none. */
  protocols?: string | readonly string[] | undefined;
  /** The shortest delay before a new attempt. Default: 500. */
  minDelayMs?: number | undefined;
  /** The longest delay before a new attempt. Default: 20000. */
  maxDelayMs?: number | undefined;
  /** Always this delay, without jitter. Default: null, full jitter. */
  fixedDelayMs?: number | null | undefined;
  /** How long a connection must last for the delays to begin anew. Default: 5000. */
  stableMs?: number | undefined;
  /** How long an attempt may take, the URL function included. Default: 10000. */
  connectTimeoutMs?: number | undefined;
  /** How many messages may wait for a connection; 0 queues none, Infinity any. Default: 100. */
  maxQueue?: number | undefined;
  /** How many bytes may wait for a connection. Default: 1048576. */
  maxQueueBytes?: number | undefined;
  /** What binary messages arrive as. Default: "arraybuffer". */
  binaryType?: "arraybuffer" | "blob" | undefined;
  /** Whether the constructor connects. Default: true. */
  autoConnect?: boolean | undefined;
  /** The WebSocket class. Default: the global one (browsers; Node from 22). */
  WebSocket?: (new (url: string, protocols?: string | string[]) => object) | undefined;
  /** Asks the URL why a handshake failed; null never asks. Default: the global fetch. */
  fetch?: ((url: string, init: any) => Promise<HubbubAnswer>) | null | undefined;
}

/** The end of one connection or one attempt. */
export interface HubbubClose {
  /** The close code; 1006 when no close frame came. */
  code: number;
  /** The server's words, those of its HTTP answer too if the handshake was refused. */
  reason: string;
  /** Whether the connection had been open. */
  opened: boolean;
  /** Whether another attempt follows. */
  comesBack: boolean;
}

/** Why there will be no further attempt. */
export interface HubbubStop {
  /**
   * The close code (1000 to 4999), or the HTTP status of a refused handshake (300 for a redirect
   * that the browser hides). 1006 when the WebSocket class would not have the URL.
   */
  code: number;
  /** A sentence for people; it may be empty after a close. */
  reason: string;
  /** The JSON body of a refused handshake (`{error, code, ...}`); null otherwise. */
  body: any;
}

/** The events of `hub.on` and what their listeners are called with. */
export interface HubbubEvents {
  /** The state changed; `delayMs` is the wait in "waiting" and 0 otherwise. */
  state: [state: HubbubState, delayMs: number];
  /** A connection is open. What listeners send goes out before the queue. */
  open: [];
  /** Every message, as it came. */
  message: [data: HubbubMessage];
  /** A text message that is a JSON object or array: parsed, and as it came. */
  json: [value: any, text: string];
  /** A connection or an attempt ended. */
  close: [close: HubbubClose];
  /** Something failed: what the URL function threw, or an Error. Information only. */
  error: [error: any];
  /** `count` messages that waited for a connection, or that the socket still held, are lost. */
  drop: [count: number];
  /** It ended for good: by `close()`, by the server's close code or its HTTP answer. */
  stop: [stop: HubbubStop];
}

/** Whether a client that was closed with `code` connects again. */
export declare const shouldComeBack: (code: number) => boolean;

/** A WebSocket that comes back. */
export declare class Hubbub {
  /**
   * A URL function is called at every attempt and may be async (a fresh token, say). Throws a
   * TypeError for arguments that can never work.
   */
  constructor(url: HubbubUrl | (() => HubbubUrl | Promise<HubbubUrl>), options?: HubbubOptions);

  readonly state: HubbubState;
  /** How long the present wait is, from its beginning; 0 in other states. */
  readonly delayMs: number;
  /** Attempts that failed and connections that were lost since one lasted `stableMs`. */
  readonly tries: number;
  /** How many messages wait for a connection. */
  readonly queued: number;
  /** Why it ended for good; null while it has not. */
  readonly stopped: HubbubStop | null;
  /** The WebSocket of the present attempt or connection. */
  readonly socket: HubbubSocket | null;

  /** Listens to an event; returns a function that ends that. */
  on<K extends keyof HubbubEvents>(
    event: K,
    listener: (...details: HubbubEvents[K]) => void,
  ): () => void;

  /** Listens to JSON objects whose "type" is `type`; returns a function that ends that. */
  onType<T = any>(type: string, listener: (message: T) => void): () => void;

  /**
   * Sends, or queues while there is no connection. False says that this message goes nowhere:
   * ended for good, or nothing may be queued. Throws a TypeError for what JSON has no form of.
   */
  send(data: HubbubData): boolean;

  /** Begins, or starts again after an end; ends a wait at once; nothing in other states. */
  connect(): void;

  /**
   * Ends for good. `code` is 1000 or 3000 to 4999, `reason` at most 123 bytes of UTF-8; the
   * browser throws for others.
   */
  close(code?: number, reason?: string): void;

  /** Loses the connection as by accident; it comes back after a delay. */
  cut(): void;

  /** Takes a new connection in place of this one, at once. Nothing in the state "closed". */
  reconnect(): void;

  /** A delay after the `tries`-th failure in a row, in milliseconds, drawn as its own are. */
  drawDelay(tries: number): number;
}
