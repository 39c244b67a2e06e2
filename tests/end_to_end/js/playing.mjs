// What scenarios share, whatever client plays them: what they write down, and what they ask of the server
// (tests/centrifuge_app.py). One scenario for each load of this module.
let base;
const events = [];

/** The codes of a close after which a client comes back, and those after which it stays away: the ends of their ranges. */
export const COMES_BACK = [3499, 4000, 4499];
export const STAYS_AWAY = [3500, 3999, 4500, 4999];

export const note = (kind, ...rest) => void events.push([kind, ...rest]);
export const count = (kind) => events.filter((event) => event[0] === kind).length;
export const said = (kind) => () => count(kind) > 0;
export const last = () => events.at(-1);
export const has = (isIt) => events.some(isIt);

export const url = () => `ws://${base}/connection/websocket`;

async function post(path, request) {
  const answer = await fetch(`http://${base}${path}`, { method: "POST", body: JSON.stringify(request) });
  return answer.json();
}

/** Have the server do something. */
export const server = (...request) => post("/do", request);

/** Have a JSON Web Token issued. */
export const issued = (claims) => post("/token", claims);

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(condition, what) {
  for (let left = 1000; !condition(); left -= 1) {
    if (left === 0) throw new Error(`waited in vain for ${what ?? condition}: ${JSON.stringify(events)}`);
    await sleep(10);
  }
}

/** Note what comes of some work: its result, or the code of its failure. */
export async function attempt(what, work) {
  try {
    note(what, (await work()) ?? null);
  } catch (error) {
    note(`${what} failed`, error.code, error.temporary ?? null);
  }
}

/** Play a scenario on the server `address`; return what happened. */
export async function playOn(address, scenario) {
  base = address;
  await scenario();
  return events;
}

/** In Node: print what happened, as one JSON array of events, and end the process. */
export function print(played) {
  played.then(
    (all) => {
      console.log(JSON.stringify(all));
      process.exit(0);
    },
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}
