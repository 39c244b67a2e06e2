/**
 * Drive hubbub.js, or rooms.js, from Node against a server of tests/refusing.py, over real connections.
 *
 *   node wire.mjs MODULE LIMIT URL...
 *
 * Each URL is tried until it ended for good, or until LIMIT attempts were made. Prints one JSON
 * object: for each URL the attempts, the `close` events and what `stopped` says.
 */
import { pathToFileURL } from "node:url";
import WebSocket from "ws";

import { load } from "./loading.mjs";

const [file, limit, ...urls] = process.argv.slice(2);
const { Hubbub, Rooms } = await load(pathToFileURL(file));
const Client = Rooms ?? Hubbub;

const tryOut = (url) =>
  new Promise((resolve) => {
    const closes = [];
    const options = { WebSocket, fixedDelayMs: 1, connectTimeoutMs: 3000 };
    if (url.endsWith("no_answer")) options.connectTimeoutMs = 100;
    const hub = new Client(url, options);
    const end = () => {
      const { stopped } = hub;
      hub.close();
      resolve([url, { attempts: closes.length, closes, stopped }]);
    };
    hub.on("close", (close) => {
      closes.push(close);
      if (close.comesBack && closes.length >= limit) end();
    });
    hub.on("stop", () => setTimeout(end, 20)); // nothing more may come
  });

const found = await Promise.all(urls.map(tryOut));
console.log(JSON.stringify(Object.fromEntries(found)));
