// How tests in Node come by hubbub.js and rooms.js: as text, since Node before 20.19 takes a .js file without a
// package.json for CommonJS. Each has its own copy of what it imports.
import { readFileSync } from "node:fs";

const addressOf = (file) => {
  const text = readFileSync(file, "utf8");
  const whole = text.replace(/ from "(\.\/\w+\.js)"/, (_, name) => ` from "${addressOf(new URL(name, file))}"`);
  return `data:text/javascript,${encodeURIComponent(whole).replaceAll("'", "%27")}`;
};

/** Load the module at a file's URL. */
export const load = (file) => import(addressOf(new URL(file)));
