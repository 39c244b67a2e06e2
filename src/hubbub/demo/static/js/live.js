/** The page at /live: prices as they come, and their last three minutes as a chart. */

import { $, $$, openHub, shortTime } from "./page.js";
import { LineChart } from "./chart.js";

const tiles = $$("[data-share]");
const shares = tiles.map((tile) => tile.dataset.share);
const chart = new LineChart($("#chart"), { series: shares.length, everyS: 2, label: "Prices over time" });
const hub = openHub();
let before = null;

const toPoint = ({ time, prices }) => ({ time, values: shares.map((share) => prices[share]) });

function show({ time, prices }) {
  for (const tile of tiles) {
    const price = prices[tile.dataset.share];
    const change = before ? price - before[tile.dataset.share] : 0;
    $(".tile-value", tile).textContent = price.toFixed(2);
    $(".tile-change", tile).textContent = `${change < 0 ? "▼" : "▲"} ${Math.abs(change).toFixed(2)}`;
    tile.dataset.trend = change < 0 ? "down" : "up";
  }
  before = prices;
  $("#count").textContent = chart.points.length;
  $("#last").textContent = `The last came at ${shortTime(time)}.`;
}

hub.onType("history", ({ ticks }) => {
  chart.merge(ticks.map(toPoint));
  before = ticks.at(-2)?.prices ?? null;
  if (ticks.length) show(ticks.at(-1));
});

hub.onType("tick", (tick) => {
  chart.push(toPoint(tick));
  show(tick);
});
