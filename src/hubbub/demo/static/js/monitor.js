/** The page at /monitor: four meters, each a number and a chart. */

import { $, element, openHub } from "./page.js";
import { LineChart } from "./chart.js";

const METERS = {
  cpu: { fields: ["cpu", "machine"], names: ["this process", "machine"], unit: "%", low: 0, high: 10 },
  memory: { fields: ["memory"], names: [""], unit: "MiB", low: 0 },
  clients: { fields: ["clients"], names: [""], unit: "", low: 0, high: 4 },
  messages: { fields: ["in", "out"], names: ["in", "out"], unit: "", low: 0, high: 5 },
};

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hub = openHub();
const meters = Object.entries(METERS).map(([id, meter]) => {
  const card = $(`[data-meter="${id}"]`);
  const { low, high } = meter;
  const label = `${$("h2", card).textContent} over time`;
  const chart = new LineChart($(".chart", card), { series: meter.fields.length, low, high, label });
  return { ...meter, chart, reading: $(".reading", card) };
});

function show(reading) {
  for (const { fields, names, unit, reading: output } of meters)
    output.replaceChildren(
      ...fields.map((field, index) =>
        element(
          "span",
          { class: `series-${index}` },
          element("b", {}, reading[field] === null ? "unknown" : number.format(reading[field])),
          ` ${[unit, names[index]].filter(Boolean).join(" ")}`,
        ),
      ),
    );
}

const toPoint = (reading, fields) => ({
  time: reading.time,
  values: fields.map((field) => reading[field] ?? NaN),
});

hub.onType("history", ({ readings }) => {
  for (const { chart, fields } of meters)
    chart.merge(readings.map((reading) => toPoint(reading, fields)));
  if (readings.length) show(readings.at(-1));
});

// Of many workers each tells everybody; the charts are of the one that this page is connected to.
let own = null;
hub.onType("server", ({ process, is_one_of_many }) => {
  own = process;
  $("#workers-card").hidden = !is_one_of_many;
});

const workers = new Map();
const SILENT_MS = 5000;

function showWorkers(reading) {
  workers.set(reading.process, { ...reading, at: Date.now() });
  for (const [process, { at }] of workers) if (Date.now() - at > SILENT_MS) workers.delete(process);
  const rows = [...workers.values()].sort((one, other) => one.worker - other.worker);
  $("#workers").replaceChildren(
    ...rows.map(({ worker, process, cpu, memory, clients, in: came, out }) =>
      element(
        "tr",
        { "data-process": process, class: process === own ? "you" : undefined },
        ...[`${worker}${process === own ? " (yours)" : ""}`, process, `${number.format(cpu)} %`, `${number.format(memory)} MiB`, clients, number.format(came), number.format(out)].map(
          (text) => element("td", {}, String(text)),
        ),
      ),
    ),
  );
  $("#worker-count").textContent = rows.length;
}

hub.onType("reading", (reading) => {
  showWorkers(reading);
  if (reading.process !== own) return;
  for (const { chart, fields } of meters) chart.push(toPoint(reading, fields));
  show(reading);
});

let noises = 0;
hub.onType("noise", () => {
  $("#noise-count").textContent = `${++noises} received.`;
});
$("#noise").addEventListener("click", ({ currentTarget }) =>
  hub.send({ type: "noise", count: Number(currentTarget.dataset.count) }),
);
