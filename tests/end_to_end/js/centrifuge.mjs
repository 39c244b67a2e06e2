// Scenarios with the unmodified npm SDK: in Node (centrifuge_node.mjs), and in a browser's page.
import { COMES_BACK, STAYS_AWAY, attempt, count, has, issued, last, note, playOn, said, server, sleep, until, url } from "./playing.mjs";

let Centrifuge, WebSocket;

function client(token, options = {}) {
  const made = new Centrifuge(url(), {
    websocket: WebSocket,
    token,
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
    ...options,
  });
  made.on("connected", () => note("connected"));
  made.on("connecting", (x) => note("connecting", x.code));
  made.on("disconnected", (x) => note("disconnected", x.code, x.reason));
  made.on("message", (x) => note("message", x.data));
  made.on("subscribed", (x) => note("given", x.channel, x.streamPosition?.offset));
  made.on("unsubscribed", (x) => note("taken", x.channel));
  made.on("publication", (x) => note("given publication", x.data, x.offset));
  return made;
}

function listen(subscription) {
  subscription.on("subscribed", (x) => note("subscribed", x.wasRecovering, x.recovered));
  subscription.on("publication", (x) => note("publication", x.data, x.offset ?? null));
  subscription.on("unsubscribed", (x) => note("unsubscribed", x.code));
  subscription.on("subscribing", (x) => note("subscribing", x.code));
  subscription.on("error", (x) => note("error", x.error.code));
  return subscription;
}

const scenarios = {
  async recovery() {
    const one = client("ann");
    const subscription = listen(one.newSubscription("chat:recovery"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await server("publish", "chat:recovery", "1", "2");
    await until(() => count("publication") === 2);
    await server("cut", "ann");
    await server("publish", "chat:recovery", "3", "4");
    await until(() => count("publication") === 4);
    await server("publish", "chat:recovery", "5");
    await until(() => count("publication") === 5);
    subscription.unsubscribe();
    await server("publish", "chat:recovery", "6");
    subscription.subscribe();
    await until(() => count("publication") === 6);
  },
  async excluded() {
    const one = client("uma");
    const subscription = listen(one.newSubscription("chat:excluded"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await server("publish", "chat:excluded", "1");
    await until(() => count("publication") === 1);
    await server("exclude", "uma", "chat:excluded", "2");
    await server("miss", "uma", "chat:excluded", "3");
    await until(() => count("publication") === 2);
    await server("cut and exclude", "uma", "chat:excluded", "4");
    await until(() => count("subscribed") === 3);
    await server("publish", "chat:excluded", "5");
    await until(() => count("publication") === 3);
    subscription.unsubscribe();
    await server("exclude", "uma", "chat:excluded", "6");
    await server("publish", "chat:excluded", "7");
    subscription.subscribe();
    await until(() => count("publication") === 4);
  },
  async lost() {
    const one = client("bob");
    const subscription = listen(one.newSubscription("short:lost"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await server("publish", "short:lost", "1");
    await until(said("publication"));
    await server("miss", "bob", "short:lost", "2", "3", "4", "5", "6");
    await until(() => count("subscribed") === 2);
    await server("publish", "short:lost", "7");
    await until(() => count("publication") === 2);
  },
  async several() {
    const one = client("cat");
    const names = ["chat:a", "chat:b", "plain", "state:c"];
    const all = names.map((each) => listen(one.newSubscription(each)));
    await server("publish", "state:c", "newest");
    for (const each of all) each.subscribe();
    one.connect();
    await Promise.all(all.map((each) => each.ready(5000)));
    await server("cut", "cat");
    await until(() => count("subscribed") === 8);
    await server("publish", "plain", "in a room without history");
    await until(() => has((event) => String(event[1]).startsWith("in a room")));
  },
  async newest() {
    const one = client("dan");
    await server("publish", "state:newest", "old", "new");
    const subscription = listen(one.newSubscription("state:newest", { since: {} }));
    subscription.subscribe();
    one.connect();
    await until(said("publication"));
  },
  async commands() {
    const one = client("eve", { data: { from: "a test" } });
    const subscription = listen(one.newSubscription("chat:commands"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await attempt("publish", () => subscription.publish({ text: "é\n" }));
    await attempt("publish elsewhere", () => one.publish("chat:other", {}));
    await attempt("history", async () => {
      const page = await subscription.history({ limit: 10 });
      return page.publications.map((each) => [each.data, each.offset]);
    });
    await server("publish", "chat:commands", "2", "3", "4");
    await attempt("page", async () => {
      const start = await subscription.history({ limit: 1 });
      const since = { offset: start.publications[0].offset, epoch: start.epoch };
      const page = await subscription.history({ limit: 2, since });
      return page.publications.map((each) => each.data);
    });
    await attempt("newest", async () => {
      const page = await subscription.history({ limit: 1, reverse: true });
      return page.publications.map((each) => each.data);
    });
    await attempt("position", async () => (await subscription.history({ limit: 0 })).offset);
    await attempt("other epoch", () => subscription.history({ limit: 1, since: { offset: 1, epoch: "x" } }));
    await attempt("no history", () => one.history("plain", { limit: 1 }));
    await attempt("rpc", () => one.rpc("add", [1, 2, 3]));
    await attempt("rpc of text", () => one.rpc("text", null));
    await attempt("rpc with nonsense", () => one.rpc("add", "one"));
    await attempt("rpc of nobody", () => one.rpc("subtract", []));
    await attempt("rpc that fails", () => one.rpc("fail", {}));
    await attempt("presence stats", () => one.presenceStats("chat:commands"));
    await one.send({ type: "hello", name: "eve" });
    await until(said("message"));
    await attempt("meta", () => server("meta", "eve"));
    await attempt("unsubscribe twice", async () => {
      subscription.unsubscribe();
      subscription.subscribe();
      await subscription.ready(5000);
      return "ready";
    });
    const forbidden = listen(one.newSubscription("chat:secret"));
    forbidden.subscribe();
    await until(() => last()[0] === "unsubscribed");
  },
  async refused() {
    const one = client("fay:invalid");
    one.connect();
    await until(said("disconnected"));
  },
  async expired() {
    let asked = 0;
    const one = client("gil:expired", {
      getToken: async () => {
        asked += 1;
        return "gil";
      },
    });
    one.connect();
    await until(said("connected"));
    note("asked", asked);
  },
  async refresh() {
    let asked = 0;
    const one = client("hal:2", {
      getToken: async () => {
        asked += 1;
        return "hal:3600";
      },
    });
    one.connect();
    await until(() => asked === 1);
    await sleep(3000);
    note("state", one.state);
  },
  async presence() {
    const one = client("lea");
    const other = client("max");
    const [here, there] = [one, other].map((each) =>
      each.newSubscription("here:all", { joinLeave: true }),
    );
    here.on("join", (x) => note("join", x.info.user));
    here.on("leave", (x) => note("leave", x.info.user));
    here.subscribe();
    one.connect();
    await here.ready(5000);
    await until(() => count("join") === 1, "its own join");
    there.subscribe();
    other.connect();
    await there.ready(5000);
    await until(() => count("join") === 2);
    const { clients } = await here.presence();
    note("users", Object.values(clients).map((each) => each.user).sort());
    note("stats", await here.presenceStats());
    other.disconnect();
    await until(said("leave"));
    note("after", await here.presenceStats());
  },
  async publishers() {
    const ids = {};
    const shown = (info) =>
      info
        ? [info.user, info.client === ids[info.user], info.connInfo ?? null, info.chanInfo ?? null]
        : null;
    const anns = await server("sign", { sub: "ann", info: { name: "Ann" } });
    const seat = { sub: "ann", channel: "team:1", info: ["guest"], data: { seat: 7 } };
    const [one, other] = [client(anns), client("bob")];
    one.on("connected", (x) => (ids.ann = x.client));
    other.on("connected", (x) => (ids.bob = x.client));
    const mine = one.newSubscription("team:1", { token: await server("sign", seat) });
    const theirs = other.newSubscription("team:1", { joinLeave: true });
    mine.on("subscribed", (x) => note("told", x.data));
    theirs.on("subscribed", (x) => note("recovered", x.recovered));
    const joined = []; // they may come before the one that joins is told its own id
    theirs.on("join", (x) => joined.push(x.info));
    theirs.on("publication", (x) => note("by", x.data, shown(x.info)));
    for (const each of [theirs, mine]) {
      each.subscribe();
      (each === mine ? one : other).connect();
      await each.ready(5000);
    }
    await until(() => joined.length === 2);
    for (const info of joined) note("join", shown(info));
    await mine.publish(1);
    await theirs.publish(2);
    await server("publish", "team:1", "3");
    await until(() => count("by") === 3);
    other.disconnect();
    await mine.publish(4);
    other.connect();
    await until(() => count("by") === 4);
    const { publications } = await theirs.history({ limit: 10 });
    note("kept", publications.map((each) => each.info && each.info.user + (each.info.connInfo?.name ?? "")));
    const { clients } = await theirs.presence();
    note("there", ...Object.values(clients).map(shown).sort());
  },
  async tokens() {
    const one = client("kim");
    const ends = [-10, 2, 3600];
    let asked = 0;
    const getToken = async ({ channel }) => {
      asked += 1;
      return server("token", "kim", channel, ends[asked - 1]);
    };
    const subscription = listen(one.newSubscription("chat:secret of kim", { getToken }));
    subscription.subscribe();
    one.connect();
    await until(() => asked === 3);
    await server("publish", "chat:secret of kim", "still here");
    await until(said("publication"));
    note("asked", asked);
    const stranger = listen(one.newSubscription("chat:secret", { token: "forged" }));
    stranger.subscribe();
    await until(said("unsubscribed"));
    const foreign = listen(
      one.newSubscription("chat:a secret", { token: await server("token", "bob", "chat:a secret", 60) }),
    );
    foreign.subscribe();
    await until(said("disconnected"));
  },
  async taken() {
    const one = client("ida");
    const subscription = listen(one.newSubscription("chat:taken"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await server("gap", "ida", "chat:taken");
    await until(() => count("subscribed") === 2);
    await server("expire", "ida", "chat:taken");
    await until(() => count("subscribed") === 3);
    await server("leave", "ida", "chat:taken");
    await until(said("unsubscribed"));
    note("state", one.state);
  },
  // The server pings each second here; this SDK gives up after four without one.
  async pings() {
    let pongs = 0;
    class Noting extends WebSocket {
      send(text) {
        pongs += text === "{}";
        super.send(text);
      }
    }
    const one = client("pia", { websocket: Noting, maxServerPingDelay: 3000 });
    one.connect();
    await until(() => pongs === 5);
    note("state", one.state);
    await server("silence", "pia");
    await until(() => count("connected") === 2);
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
    const one = client("", { websocket: Noting, getToken });
    one.connect();
    await until(() => refreshed === 1);
    await server("publish", "chat:mine", "1");
    await until(said("given publication"));
    note("asked", asked, one.state);
    const [head, payload] = (await issued({ sub: "ann", lives_s: 60 })).split(".");
    client(`${head}.${payload}.${"A".repeat(86)}`).connect();
    await until(said("disconnected"));
  },
  // What is on the way holds it up for a while: see test_slow_sdks.
  async slow() {
    const one = client("sam");
    const subscription = one.newSubscription("slow:1");
    let isOver = false;
    subscription.on("subscribing", (x) => note("subscribing", x.code));
    subscription.on("subscribed", (x) => note("subscribed", x.wasRecovering, x.recovered));
    subscription.on("publication", ({ data }) => {
      note("publication", data.n);
      isOver = data.is_last;
    });
    subscription.subscribe();
    one.connect();
    await until(() => count("subscribing") === 2);
    await until(() => isOver);
  },
  async assigned() {
    const one = client("assigned");
    one.on("subscribed", (x) => note("had", x.channel, x.wasRecovering, x.recovered));
    one.connect();
    await until(() => count("had") === 2);
    await server("publish", "chat:own", "1");
    await until(() => count("given publication") === 1);
    await server("miss", "assigned", "chat:own", "2", "3");
    await until(() => count("given publication") === 3);
    await server("publish", "short:own", "a");
    await until(() => count("given publication") === 4);
    await server("miss", "assigned", "short:own", "b", "c", "d", "e", "f");
    await until(() => count("had") === 6);
  },
  async delta() {
    const one = client("ann");
    const subscription = listen(one.newSubscription("doc:1", { delta: "fossil" }));
    const other = listen(one.newSubscription("doc:2"));
    const document = (n) => JSON.stringify({ n, text: "äöü € 𝄞 and so on. ".repeat(20) });
    subscription.subscribe();
    other.subscribe();
    one.connect();
    await Promise.all([subscription.ready(5000), other.ready(5000)]);
    await server("publish", "doc:1", document(1), document(2), document(3));
    await server("publish", "doc:2", document(1), document(2));
    await until(() => count("publication") === 5);
    await server("miss", "ann", "doc:1", document(4), document(5));
    await until(() => count("publication") === 7);
    await server("publish", "doc:1", document(6), document(7));
    await until(() => count("publication") === 9);
  },
  async given() {
    const one = client("server-side");
    one.connect();
    await until(said("given"));
    await server("publish", "chat:given", "1");
    await until(said("given publication"));
    await server("cut", "server-side");
    await server("publish", "chat:given", "2");
    await until(() => count("given publication") === 2);
    await server("send", "server-side", { only: "you" });
    await until(said("message"));
    await server("leave", "server-side", "chat:given");
    await until(() => last()[0] === "taken");
  },
  async ended() {
    const one = client("server-side");
    one.connect();
    await until(said("given"));
    await server("publish", "chat:given", "1");
    await until(said("given publication"));
    await server("expire", "server-side", "chat:given");
    await server("publish", "chat:given", "2");
    await until(() => count("given publication") === 2);
    await server("publish", "chat:given", "3");
    await until(() => count("given publication") === 3);
  },
  async codes() {
    const one = client("jim");
    one.connect();
    await until(said("connected"));
    for (const code of [...COMES_BACK, ...STAYS_AWAY]) {
      const [connected, ended] = [count("connected"), count("disconnected")];
      await server("close", "jim", code, "because");
      if (STAYS_AWAY.includes(code)) {
        await until(() => count("disconnected") > ended);
        note("state", one.state);
        one.connect();
      }
      await until(() => count("connected") > connected);
    }
  },
  // To this SDK 1009 is an end for good, unlike to rooms.js.
  async too_long() {
    const one = client("ned");
    const subscription = listen(one.newSubscription("chat:long"));
    subscription.subscribe();
    one.connect();
    await subscription.ready(5000);
    await attempt("publish", () => subscription.publish("x".repeat(200_000)));
    await until(said("disconnected"));
    note("state", one.state);
  },
};

/** Play a scenario, with an SDK and a WebSocket class, on the server `address`; return what happened. */
export function play(name, sdk, webSocket, address) {
  [Centrifuge, WebSocket] = [sdk, webSocket];
  return playOn(address, scenarios[name]);
}
