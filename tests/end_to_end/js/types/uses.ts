/** Every right use of hubbub.d.ts, and some wrong ones; no DOM, no Node. Only compiled, never run. */
import { Hubbub, shouldComeBack } from "./hubbub.js";
import type { HubbubData, HubbubMessage, HubbubOptions, HubbubStop } from "./hubbub.js";

const PROTOCOLS = ["chat.v2", "chat.v1"] as const;
const frozen: readonly string[] = PROTOCOLS;

const hub = new Hubbub("/ws", { protocols: PROTOCOLS, binaryType: "blob" });
new Hubbub({ href: "ws://a.test/" }, { protocols: frozen, fixedDelayMs: null });
new Hubbub(() => "/ws", { protocols: "chat.v1", fetch: null, maxQueue: Infinity });
new Hubbub(async () => "/ws");

// An option that is undefined has its default, also under exactOptionalPropertyTypes.
const perhaps: number | undefined = Math.random() < 0.5 ? 1 : undefined;
const options: HubbubOptions = { minDelayMs: perhaps, protocols: undefined, WebSocket: undefined };
new Hubbub("/ws", options);
new Hubbub("/ws", {
  fetch: async (url: string) => ({
    status: url.length,
    headers: { get: () => null },
    json: async () => null,
  }),
  WebSocket: class {
    constructor(readonly url: string, readonly protocols?: string | string[]) {}
  },
});

interface Say {
  type: "say";
  text: string;
}

const off: () => void = hub.onType<Say>("say", ({ text }) => text.trim());
off();
hub.on("state", (state, delayMs) => [state === "waiting", delayMs.toFixed()]);
hub.on("message", (data: HubbubMessage) => (typeof data === "string" ? data.length : data));
hub.on("close", ({ code, reason, opened, comesBack }) => [code + 1, reason.trim(), opened, comesBack]);
hub.on("drop", (count) => count + 1);
hub.on("stop", ({ code, reason, body }: HubbubStop) => [code, reason, body?.error]);

const everything: HubbubData[] = [
  "text", { type: "say" }, [1], 7, true, null,
  new ArrayBuffer(1), new SharedArrayBuffer(1), new Uint8Array(1), new DataView(new ArrayBuffer(1)),
];
const sent: boolean[] = everything.map((data) => hub.send(data));
const held: number = hub.socket?.bufferedAmount ?? hub.queued;
const why: string | undefined = hub.stopped?.reason;
const back: boolean = shouldComeBack(1012);
const numbers: number[] = [hub.delayMs, hub.tries, held, sent.length, why?.length ?? 0, +back];
hub.connect();
hub.cut();
hub.reconnect();
hub.close();
hub.close(4501, `${numbers}`);

// @ts-expect-error: no such event
hub.on("mesage", () => {});
// @ts-expect-error: no such option
new Hubbub("/ws", { minDelay: 5 });
// @ts-expect-error: no such binary type
new Hubbub("/ws", { binaryType: "text" });
// @ts-expect-error: no URL
new Hubbub(undefined);
// @ts-expect-error: JSON has no form of it
hub.send(undefined);
// @ts-expect-error: it only reads
hub.state = "open";
