/** Every right use of rooms.d.ts, and some wrong ones; no DOM, no Node. Only compiled, never run. */
import { Rooms, RoomsError } from "./rooms.js";
import type { Room, RoomPosition, RoomsOptions } from "./rooms.js";

const perhaps: string | undefined = Math.random() < 0.5 ? "token" : undefined;
const options: RoomsOptions = { token: perhaps, getToken: async () => "token", data: { a: 1 } };
const rooms = new Rooms("/connection/websocket", options);
new Rooms(async () => "/ws", { getToken: () => "token", timeoutMs: 1000, minDelayMs: 20 });

const room: Room = rooms.room("chat:1");
const since: RoomPosition = { offset: 1, epoch: "x" };
rooms.room("chat:2", { since }).subscribe();
rooms.room("state:1", { since: {} }).subscribe();
const off: () => void = room.on("message", ({ data, offset, info }) => [data.text, offset?.toFixed(), info?.client.length]);
off();
room.on("subscribed", ({ recovered, wasRecovering, position }) =>
  wasRecovering && !recovered ? position?.epoch.trim() : null,
);
room.on("gap", ({ position }) => position?.offset);
room.on("unsubscribed", ({ code, reason }) => [code + 1, reason.trim()]);
room.on("state", (state) => state === "subscribing");
room.on("error", ({ code, temporary }) => [code + 1, temporary]);
rooms.on("open", ({ client }) => client.trim());
rooms.on("state", (state, delayMs) => [state === "waiting", delayMs.toFixed()]);
rooms.on("room", (given) => given.name.trim());
rooms.on("close", ({ code, reason, comesBack }) => [code + 1, reason.trim(), comesBack]);
rooms.on("stop", ({ code, reason }) => [code + 1, reason.trim()]);

room.subscribe();
try {
  await room.publish({ text: "hello" });
  const page = await room.history<{ text: string }>({ limit: 10, since, reverse: true });
  const texts: string[] = page.publications.map(({ data }) => data.text);
  const users: string[] = Object.values(await room.presence()).map(({ user }) => user);
  const names: string[] = page.publications.map(({ info }) => info?.user ?? info?.conn_info.name);
  const half: number = await rooms.call<number>("divide", [texts.length, users.length, names.length]);
  const sent: boolean = rooms.send({ half });
  room.unsubscribe();
  if (!sent) rooms.reconnect();
} catch (error) {
  if (error instanceof RoomsError && error.code === 103) rooms.close(4500, error.message);
}
const states: string[] = [rooms.state, room.state, rooms.client, rooms.stopped?.reason ?? ""];
rooms.close(1000, states.join());
rooms.connect();
rooms.cut();

// @ts-expect-error: no such event
room.on("publication", () => {});
// @ts-expect-error: no such option
new Rooms("/ws", { maxQueueBytes: 5 });
// @ts-expect-error: a position has an epoch
await room.history({ since: { offset: 1 } });
