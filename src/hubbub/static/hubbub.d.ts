/** Types of hubbub.js. Durations are milliseconds. */

/**
 * "connecting": an attempt is under way. "open": messages flow. "waiting": the next attempt comes
 * after `delayMs`. "closed": before the first `connect()`, or ended for good.
 */
export type HubbubState = "connecting" | "open" | "waiting" | "closed";

/** What `send` takes. An object, number, boolean or null is sent as JSON text. */
export type HubbubData =
  | string
  | ArrayBuffer
  | ArrayBufferView
  | Blob
  | object
  | number
  | boolean
  | null;

/** What arrives: text as a string, binary as `binaryType` says. */
export type HubbubMessage = string | ArrayBuffer | Blob;

/** An absolute ws:, wss:, http: or https: URL, or one that is resolved against the page's. */
export type HubbubUrl = string | URL;

export interface HubbubOptions {
  /** WebSocket subprotocols. Default: none. */
  protocols?: string | string[];
  /** The shortest delay before a new attempt. Default: 500. */
  minDelayMs?: number;
  /** The longest delay before a new attempt. Default: 20000. */
  maxDelayMs?: number;
  /** Always this delay, without jitter. Default: null, full jitter. */
  fixedDelayMs?: number | null;
  /** How long a connection must last for the delays to begin anew. Default: 5000. */
  stableMs?: number;
  /** How long an attempt may take, the URL function included. Default: 10000. */
  connectTimeoutMs?: number;
  /** How many messages may wait for a connection; 0 queues none. Default: 100. */
  maxQueue?: number;
  /** How many bytes may wait for a connection. Default: 1048576. */
  maxQueueBytes?: number;
  /** What binary messages arrive as. Default: "arraybuffer". */
  binaryType?: BinaryType;
  /** Whether the constructor connects. Default: true. */
  autoConnect?: boolean;
  /** The WebSocket class. Default: the global one (browsers; Node from 22). */
  WebSocket?: new (url: string, protocols?: string | string[]) => object;
  /** Asks the URL why a handshake failed; null never asks. Default: the global fetch. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | null;
}

/** The end of one connection or one attempt. */
export interface HubbubClose {
  /** The close code; 1006 when no close frame came. */
  code: number;
  reason: string;
  /** Whether the connection had been open. */
  opened: boolean;
  /** Whether another attempt follows. */
  comesBack: boolean;
}

/** Why there will be no further attempt. */
export interface HubbubStop {
  /** The close code (1000 to 4999), or the HTTP status (401, 403) of a refused handshake. */
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
  /** `count` messages that waited for a connection are lost. */
  drop: [count: number];
  /** It ended for good: by `close()`, by the server's close code, or by 401 or 403. */
  stop: [stop: HubbubStop];
}

/** Whether a client that was closed with `code` connects again. */
export declare const shouldComeBack: (code: number) => boolean;

/** A WebSocket that comes back. */
export declare class Hubbub {
  /** A URL function is called at every attempt and may be async (a fresh token, say). */
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
  readonly socket: WebSocket | null;

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

  /** Starts again after an end; ends a wait at once; nothing in other states. */
  connect(): void;

  /**
   * Ends for good. `code` is 1000 or 3000 to 4999, `reason` at most 123 bytes of UTF-8; the
   * browser throws for others.
   */
  close(code?: number, reason?: string): void;

  /** Loses the connection as by accident; it comes back after a delay. */
  cut(): void;

  /** Takes a new connection in place of this one, at once. */
  reconnect(): void;
}
