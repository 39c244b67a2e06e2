/** Types of rooms.js. Durations are milliseconds. See hubbub.d.ts for what the two share. */
import type { HubbubClose, HubbubOptions, HubbubState, HubbubStop, HubbubUrl } from "./hubbub.js";

/** How far a room has come: an offset that counts from 1, within a history's name. */
export interface RoomPosition {
  offset: number;
  epoch: string;
}

/** "subscribing": asked for, or again after the connection was lost. */
export type RoomState = "unsubscribed" | "subscribing" | "subscribed";

/** A connection, as others see it. */
export interface RoomClientInfo {
  /** "" for who is anonymous. */
  user: string;
  client: string;
  /** What its token says, or its Identity. */
  conn_info?: any;
  /** What is said of it in that room. */
  chan_info?: any;
}

/** What was published. */
export interface RoomMessage<T = any> {
  data: T;
  /** Its place in the room's history; null in a room that keeps none. */
  offset: number | null;
  /** Who published it; absent if the server did. */
  info?: RoomClientInfo;
}

/** A part of a room's history, and how far the room has come. */
export interface RoomPage<T = any> {
  publications: { data: T; offset: number; info?: RoomClientInfo }[];
  position: RoomPosition;
}

/** The events of `room.on` and what their listeners are called with. */
export interface RoomEvents {
  state: [state: RoomState];
  /** In the room. What it missed follows as messages, if `recovered`. */
  subscribed: [
    subscribed: { recovered: boolean; wasRecovering: boolean; position: RoomPosition | null },
  ];
  message: [message: RoomMessage];
  /** What was missed cannot be had any more: load anew what the page shows. */
  gap: [gap: { position: RoomPosition | null }];
  /** Out of the room for good: 0 by `unsubscribe()`, 100 to 1999 refused, from 2000 the server's. */
  unsubscribed: [unsubscribed: { code: number; reason: string }];
  /** It was refused for now, and asks again. */
  error: [error: RoomsError];
}

/** A room of `Rooms`; there is one object for each name. */
export interface Room {
  readonly name: string;
  readonly state: RoomState;
  /** After the last message that all listeners have had; null in a room that keeps no history. */
  readonly position: Partial<RoomPosition> | null;
  /** Listens to an event; returns a function that ends that. */
  on<K extends keyof RoomEvents>(event: K, listener: (...details: RoomEvents[K]) => void): () => void;
  /**
   * Asks for the room, from its position on if it has one; nothing while it is asked for or in it. One
   * that the server gave is asked for when the server does not give it again.
   */
  subscribe(): void;
  unsubscribe(): void;
  /** Resolves when the server has it. All commands reject with a `RoomsError`. */
  publish(data: unknown): Promise<void>;
  /**
   * Reads the history, oldest first. `limit`: at most so many; 0 for the position alone; -1, the
   * default, for as many as the server gives. `since`: after that position (before it, `reverse`);
   * half of one is a `TypeError`.
   */
  history<T = any>(options?: {
    limit?: number | undefined;
    since?: RoomPosition | undefined;
    reverse?: boolean | undefined;
  }): Promise<RoomPage<T>>;
  /** Who is there, by connection. */
  presence(): Promise<Record<string, RoomClientInfo>>;
}

/** Those of hubbub.js (but for its queue and binaryType), and its own. */
export interface RoomsOptions
  extends Omit<HubbubOptions, "maxQueue" | "maxQueueBytes" | "binaryType"> {
  /** Who comes; the first token, if there is `getToken` too. */
  token?: string | undefined;
  /** Asked when there is no token, and for another when one ends. What it throws is tried again. */
  getToken?: (() => string | Promise<string>) | undefined;
  /** Any JSON for the server's authenticate handler (`handshake.data`). */
  data?: unknown;
  /** How long a command may take, the wait for a connection included. Default: 5000. */
  timeoutMs?: number | undefined;
  /** How late a ping of the server may be before the connection counts as lost. Default: 10000. */
  maxPingDelayMs?: number | undefined;
  /** How many commands may wait for a connection. Default: 100. */
  maxQueue?: number | undefined;
}

/** The events of `rooms.on` and what their listeners are called with. */
export interface RoomsEvents {
  state: [state: HubbubState, delayMs: number];
  /** The server knows who it is; `client` is the connection's id. */
  open: [open: { client: string; data?: any }];
  /** What the server sent to this client, and not to a room. */
  message: [data: any];
  /** The server has put this client into a room that the page has not named yet. */
  room: [room: Room];
  /** As in hubbub.js; `code` may be the number of an error, after which no connection was made. */
  close: [close: HubbubClose];
  /** What `getToken` or the URL function threw, or a failed connection. Information only. */
  error: [error: any];
  /** It ended for good; `code` is as in `close`, or an HTTP status. */
  stop: [stop: HubbubStop];
}

/**
 * Why a command failed. `code` is the server's (from 100 on), or 1: no answer in time; 2: the
 * connection was lost, and the command may or may not have been carried out; 3: ended for good;
 * 4: too many commands wait for a connection.
 */
export declare class RoomsError extends Error {
  constructor(code: number, message: string, temporary?: boolean);
  readonly code: number;
  /** Whether the same may succeed later. */
  readonly temporary: boolean;
}

/** A connection that comes back, and its rooms. */
export declare class Rooms {
  /** As in hubbub.js. The route has the dialect "centrifuge". */
  constructor(url: HubbubUrl | (() => HubbubUrl | Promise<HubbubUrl>), options?: RoomsOptions);
  readonly state: HubbubState;
  /** How long the present wait is, from its beginning; 0 in other states. */
  readonly delayMs: number;
  /** Why it ended for good; null while it has not. */
  readonly stopped: HubbubStop | null;
  /** The id of the present connection; "" without one. */
  readonly client: string;
  /** Listens to an event; returns a function that ends that. */
  on<K extends keyof RoomsEvents>(
    event: K,
    listener: (...details: RoomsEvents[K]) => void,
  ): () => void;
  /**
   * The room of that name. `since`: subscribe from there; `{}` for the newest of a state. Throws a `TypeError`
   * for half a position, or one of other types: the server would end the connection for good.
   */
  room(name: string, options?: { since?: Partial<RoomPosition> | null | undefined }): Room;
  /** Calls a function of the server (`@hub.rpc`). */
  call<T = any>(method: string, data?: unknown): Promise<T>;
  /** Sends to the server's handlers, without an answer; false while there is no connection. */
  send(data: unknown): boolean;
  /** Begins, or starts again after an end; ends a wait at once; nothing in other states. */
  connect(): void;
  /** Ends for good; see hubbub.js. */
  close(code?: number, reason?: string): void;
  /** Loses the connection as by accident; it comes back after a delay. */
  cut(): void;
  /** Takes a new connection in place of this one, at once. */
  reconnect(): void;
}
