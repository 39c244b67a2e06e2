// Scenarios with rooms.js: in Node (rooms_node.mjs), and in a browser's page.
import { COMES_BACK, STAYS_AWAY, attempt, count, has, issued, last, note, playOn, said, server, sleep, until, url } from "./playing.mjs";

let Rooms, WebSocket;

function client(token, options = {}) {
  const made = new Rooms(url(), {
    WebSocket,
    token,
    minDelayMs: 20,
    maxDelayMs: 100,
    ...options,
  });
  made.on("open", () => note("open"));
  made.on("close", (x) => note("close", x.code, x.reason, x.comesBack));
  made.on("stop", (x) => note("stop", x.code, x.reason));
  made.on("message", (x) => note("message", x));
  made.on("room", (room) => {
    note("room", room.name);
    listen(room);
  });
  return made;
}

function listen(room) {
  room.on("subscribed", (x) => note("subscribed", x.wasRecovering, x.recovered));
  room.on("message", (x) => note("publication", x.data, x.offset));
  room.on("unsubscribed", (x) => note("unsubscribed", x.code));
  room.on("gap", (x) => note("gap", x.position.offset));
  room.on("state", (x) => x === "subscribing" && note("subscribing"));
  room.on("error", (x) => note("error", x.code));
  return room;
}

function enter(one, name, options) {
  const room = listen(one.room(name, options));
  room.subscribe();
  return room;
}

const ready = (room) => until(() => room.state === "subscribed");

const scenarios = {
  async recovery() {
    const room = enter(client("ann"), "chat:recovery");
    await ready(room);
    await server("publish", "chat:recovery", "1", "2");
    await until(() => count("publication") === 2);
    await server("cut", "ann");
    await server("publish", "chat:recovery", "3", "4");
    await until(() => count("publication") === 4);
    await server("publish", "chat:recovery", "5");
    await until(() => count("publication") === 5);
    room.unsubscribe();
    await server("publish", "chat:recovery", "6");
    room.subscribe();
    await until(() => count("publication") === 6);
  },
  async excluded() {
    const room = enter(client("uma"), "chat:excluded");
    await ready(room);
    await server("publish", "chat:excluded", "1");
    await until(() => count("publication") === 1);
    await server("exclude", "uma", "chat:excluded", "2");
    await server("miss", "uma", "chat:excluded", "3");
    await until(() => count("publication") === 2);
    await server("cut and exclude", "uma", "chat:excluded", "4");
    await until(() => count("subscribed") === 3);
    await server("publish", "chat:excluded", "5");
    await until(() => count("publication") === 3);
    room.unsubscribe();
    await server("exclude", "uma", "chat:excluded", "6");
    await server("publish", "chat:excluded", "7");
    room.subscribe();
    await until(() => count("publication") === 4);
  },
  async lost() {
    const room = enter(client("bob"), "short:lost");
    await ready(room);
    await server("publish", "short:lost", "1");
    await until(said("publication"));
    await server("miss", "bob", "short:lost", "2", "3", "4", "5", "6");
    await until(() => count("subscribed") === 2);
    await server("publish", "short:lost", "7");
    await until(() => count("publication") === 2);
  },
  async several() {
    await server("publish", "state:c", "newest");
    const frames = [];
    class Noting extends WebSocket {
      send(text) {
        frames.push(text);
        super.send(text);
      }
    }
    const one = client("cat", { WebSocket: Noting });
    const all = ["chat:a", "chat:b", "plain", "state:c"].map((each) => enter(one, each));
    await Promise.all(all.map(ready));
    await server("cut", "cat");
    await until(() => count("subscribed") === 8);
    await server("publish", "plain", "in a room without history");
    await until(() => has((event) => String(event[1]).startsWith("in a room")));
    note("lines", ...frames.map((text) => text.split("\n").length));
  },
  async many() {
    const one = client("cat");
    const all = Array.from({ length: 120 }, (_, n) => one.room(`chat:${"x".repeat(150)}${n}`));
    for (const room of all) room.subscribe();
    await Promise.all(all.map(ready));
    await server("cut", "cat");
    await until(() => count("open") === 2);
    await Promise.all(all.map(ready));
    note("ready", all.length);
  },
  async newest() {
    await server("publish", "state:newest", "old", "new");
    enter(client("dan"), "state:newest", { since: {} });
    await until(said("publication"));
  },
  async commands() {
    const one = client("eve", { data: { from: "a test" } });
    const room = enter(one, "chat:commands");
    await attempt("publish", () => room.publish({ text: "é\n" })); // before it is connected
    await attempt("publish elsewhere", () => one.room("chat:other").publish({}));
    await attempt("publish nothing", () => room.publish(undefined));
    await attempt("publish a number", () => room.publish(1n));
    await attempt("history", async () => {
      const page = await room.history({ limit: 10 });
      return page.publications.map((each) => [each.data, each.offset]);
    });
    await server("publish", "chat:commands", "2", "3", "4");
    await attempt("page", async () => {
      const { publications, position } = await room.history({ limit: 1 });
      const since = { ...position, offset: publications[0].offset };
      return (await room.history({ limit: 2, since })).publications.map((each) => each.data);
    });
    await attempt("newest", async () => {
      const page = await room.history({ limit: 1, reverse: true });
      return page.publications.map((each) => each.data);
    });
    await attempt("all", async () => (await room.history()).publications.length);
    await attempt("position", async () => (await room.history({ limit: 0 })).position.offset);
    await attempt("other epoch", () => room.history({ since: { offset: 1, epoch: "x" } }));
    await attempt("no history", () => one.room("plain").history());
    await attempt("call", () => one.call("add", [1, 2, 3]));
    await attempt("call of text", () => one.call("text"));
    await attempt("call with nonsense", () => one.call("add", "one"));
    await attempt("call of nobody", () => one.call("subtract", []));
    await attempt("call that fails", () => one.call("fail", {}));
    await attempt("presence", () => room.presence());
    note("sent", one.send({ type: "hello", name: "eve" }));
    await until(said("message"));
    await attempt("meta", () => server("meta", "eve"));
    room.unsubscribe();
    room.subscribe();
    await ready(room);
    enter(one, "chat:secret");
    await until(said("unsubscribed") && (() => last()[0] === "unsubscribed"));
    one.close();
    await attempt("too late", () => room.publish({}));
  },
  async refused() {
    client("fay:invalid");
    await until(said("stop"));
  },
  async expired() {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return "gil";
    };
    const one = client("gil:expired", { getToken });
    await until(said("open"));
    note("asked", asked);
    one.close();
  },
  async hopeless() {
    client("gil:expired");
    await until(said("stop"));
  },
  async token() {
    let asked = 0;
    const getToken = () => {
      asked += 1;
      if (asked === 1) throw new Error("no network");
      return "kim";
    };
    const one = client(undefined, { getToken });
    one.on("error", (error) => note("error", error.message));
    await until(said("open"));
    note("asked", asked);
  },
  async refresh() {
    let asked = 0;
    const tokens = ["hal:2", "hal:3600"];
    const getToken = async () => tokens[asked++];
    const one = client("hal:2", { getToken });
    await until(() => asked === 2);
    note("asked", asked);
    await attempt("call", () => one.call("add", [1, 2])); // answered after the last refresh
    note("state", one.state);
  },
  async unwelcome() {
    client("hal:1", { getToken: async () => "hal:invalid" });
    await until(said("stop"));
  },
  // One token that has expired, one for two seconds, one for an hour; then one that nobody signed.
  async jwt() {
    let refreshed = 0;
    class Noting extends WebSocket {
      constructor(...rest) {
        super(...rest);
        this.addEventListener("message", ({ data }) => {
          refreshed += /"refresh":\{"expires":true/.test(data);
        });
      }
    }
    const lives = [-10, 2, 3600];
    let asked = 0;
    const getToken = () => issued({ sub: "ann", channels: ["chat:mine"], lives_s: lives[asked++] });
    const one = client(undefined, { WebSocket: Noting, getToken });
    await until(() => refreshed === 1);
    await server("publish", "chat:mine", "1");
    await until(said("publication"));
    note("asked", asked, one.state);
    const [head, payload] = (await issued({ sub: "ann", lives_s: 60 })).split(".");
    client(`${head}.${payload}.${"A".repeat(86)}`);
    await until(said("stop"));
  },
  // What is on the way holds it up for a while: see test_slow_sdks.
  async slow() {
    const room = client("sam").room("slow:1");
    let isOver = false;
    room.on("state", (x) => x === "subscribing" && note("subscribing"));
    room.on("subscribed", (x) => note("subscribed", x.wasRecovering, x.recovered));
    room.on("gap", () => note("gap"));
    room.on("message", ({ data }) => {
      note("publication", data.n);
      isOver = data.is_last;
    });
    room.subscribe();
    await until(() => count("subscribing") === 2);
    await until(() => isOver);
  },
  // The server pings each second here; this client gives up after three without one.
  async pings() {
    let pongs = 0;
    class Noting extends WebSocket {
      send(text) {
        pongs += text === "{}";
        super.send(text);
      }
    }
    const one = client("pia", { WebSocket: Noting, maxPingDelayMs: 2000 });
    await until(() => pongs === 4);
    note("state", one.state);
    await server("silence", "pia");
    await until(() => count("open") === 2);
  },
  async presence() {
    const one = client("lea");
    const other = client("max");
    const here = enter(one, "here:all");
    await ready(here);
    await ready(enter(other, "here:all"));
    const users = async () => {
      const found = Object.entries(await here.presence());
      const isByClient = found.every(([name, each]) => name === each.client);
      return [found.map(([, each]) => each.user).sort(), isByClient];
    };
    note("users", ...(await users()));
    other.close();
    let left = await users();
    while (left[0].length > 1) left = await users();
    note("users", ...left);
  },
  async publishers() {
    const anns = await server("sign", { sub: "ann", info: { name: "Ann" } });
    const one = client(anns);
    const other = client("bob");
    const mine = one.room("team:1");
    const theirs = other.room("team:1");
    theirs.on("message", ({ data, info }) => note("by", data, info?.user ?? null, info?.conn_info ?? null));
    for (const each of [mine, theirs]) {
      each.subscribe();
      await ready(each);
    }
    await mine.publish(1);
    await theirs.publish(2);
    await server("publish", "team:1", "3");
    await until(() => count("by") === 3);
    const { publications } = await theirs.history();
    note("kept", publications.map(({ info }) => info?.user ?? null));
    const there = await theirs.presence();
    note("there", there[one.client].conn_info, there[other.client].conn_info ?? null);
  },
  async whole() {
    const frames = [];
    class Noting extends WebSocket {
      constructor(...rest) {
        super(...rest);
        this.addEventListener("message", ({ data }) => frames.push(data));
      }
      send(text) {
        note("sent", text);
        super.send(text);
      }
    }
    const room = client("ann", { WebSocket: Noting }).room("doc:1");
    room.on("message", ({ data, offset }) => note("publication", data.n, offset));
    room.subscribe();
    await ready(room);
    const document = (n) => JSON.stringify({ n, text: "äöü € 𝄞 and so on. ".repeat(20) });
    await server("publish", "doc:1", document(1), document(2), document(3));
    await until(() => count("publication") === 3);
    await server("miss", "ann", "doc:1", document(4), document(5));
    await until(() => count("publication") === 5);
    note("asked for patches", has(([kind, text]) => kind === "sent" && /"delta"/.test(text)));
    note("patches", frames.filter((text) => /"delta":true/.test(text)).length);
  },
  async taken() {
    const one = client("ida");
    const room = enter(one, "chat:taken");
    await ready(room);
    await server("gap", "ida", "chat:taken");
    await until(() => count("subscribed") === 2);
    await server("expire", "ida", "chat:taken");
    await until(() => count("subscribed") === 3);
    await server("leave", "ida", "chat:taken");
    await until(said("unsubscribed"));
    note("state", one.state);
  },
  async assigned() {
    client("assigned");
    await until(() => count("subscribed") === 2);
    await server("publish", "chat:own", "1");
    await until(() => count("publication") === 1);
    await server("miss", "assigned", "chat:own", "2", "3");
    await until(() => count("publication") === 3);
    await server("publish", "short:own", "a");
    await until(() => count("publication") === 4);
    await server("miss", "assigned", "short:own", "b", "c", "d", "e", "f");
    await until(said("gap"));
  },
  async given() {
    client("server-side");
    await until(said("subscribed"));
    await server("publish", "chat:given", "1");
    await until(said("publication"));
    await server("cut", "server-side");
    await server("publish", "chat:given", "2");
    await until(() => count("publication") === 2);
    await server("send", "server-side", { only: "you" });
    await until(said("message"));
    await server("leave", "server-side", "chat:given");
    await until(said("unsubscribed"));
  },
  async ended() {
    client("server-side");
    await until(said("subscribed"));
    await server("publish", "chat:given", "1");
    await until(said("publication"));
    await server("expire", "server-side", "chat:given");
    await server("publish", "chat:given", "2");
    await until(() => count("publication") === 2);
    await server("publish", "chat:given", "3");
    await until(() => count("publication") === 3);
  },
  async codes() {
    const one = client("jim");
    await until(said("open"));
    for (const code of [...COMES_BACK, ...STAYS_AWAY]) {
      const [open, ended] = [count("open"), count("stop")];
      await server("close", "jim", code, "because");
      if (STAYS_AWAY.includes(code)) {
        await until(() => count("stop") > ended);
        note("state", one.state);
        one.connect();
      }
      await until(() => count("open") > open);
    }
  },
  // Tokens of single rooms are not for rooms.js: where the npm SDK shows one, it is refused.
  async tokens() {
    const one = client("kim");
    const name = "chat:secret of kim";
    const room = one.room(name, { token: await server("token", "kim", name, 60) });
    listen(room).on("unsubscribed", ({ code, reason }) => note("told", code, reason));
    room.subscribe();
    await until(said("told"));
    note("state", room.state, one.state);
    await attempt("publish", () => room.publish(1));
    await attempt("history", () => room.history());
    await server("cut", "kim");
    await until(() => count("open") === 2);
    await attempt("call", () => one.call("add", [1, 2])); // a request for the room would be answered before
    await server("publish", name, "not for kim");
    await attempt("call", () => one.call("add", [1, 2]));
    room.subscribe();
    await until(() => count("told") === 2);
  },
  async too_long() {
    const room = enter(client("ned"), "chat:long");
    await ready(room);
    await attempt("publish", () => room.publish("x".repeat(200_000)));
    await until(() => count("subscribed") === 2);
  },
  // Left and entered again by its own listener, in the middle of a message of several publications.
  async entered_again() {
    const room = enter(client("lea"), "chat:again");
    room.on("message", ({ offset }) => {
      if (offset % 3) return;
      room.unsubscribe();
      room.subscribe();
    });
    await ready(room);
    await server("publish", "chat:again", ..."123456789".split(""));
    await until(() => count("publication") >= 9);
    await sleep(100);
  },
  async cuts() {
    const one = client("max", { minDelayMs: 1, maxDelayMs: 30 });
    const room = enter(one, "chat:cuts");
    await ready(room);
    for (let n = 1; n <= 100; n += 1) {
      await server("publish", "chat:cuts", `${n}`);
      const dice = Math.random();
      if (dice < 0.1) await server("cut", "max");
      else if (dice < 0.2) one.cut();
      else if (dice < 0.25) one.reconnect();
      else if (dice < 0.3) room.unsubscribe();
      room.subscribe(); // nothing, but after unsubscribe()
      if (dice > 0.5) await sleep(Math.random() * 15);
    }
    await until(() => count("publication") >= 100);
    await sleep(50);
    note("cut", count("open") > 1);
  },
};

/** Play a scenario, with rooms.js and a WebSocket class, on the server `address`; return what happened. */
export function play(name, rooms, webSocket, address) {
  [Rooms, WebSocket] = [rooms, webSocket];
  return playOn(address, scenarios[name]);
}
