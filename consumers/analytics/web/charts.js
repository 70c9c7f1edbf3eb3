// The three charts, by plotly. Each has a label that says in words what it shows; its numbers are in the table below it.

import { WEEKDAYS, count, duration, moment, upTo } from "./tables.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };
const LENGTH_MS = { hour: 3600e3, day: 86400e3 };
const TICKS_MAX = 3; // of a panel's scale: it is read across, not measured
const TICK_WIDTH_PX = 80; // of a time's two lines, with room between
const STEPS_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400];

// plotly is large and comes last; the figures do not wait for it. Resolves with nothing when it could not be loaded.
const loaded = new Promise((resolve) => {
  if (document.readyState === "complete") resolve(window.Plotly);
  else window.addEventListener("load", () => resolve(window.Plotly));
});
const drawn = new Map();

/** Draws what has changed since the last time, in the theme of now. */
export async function draw(figures) {
  const plotly = await loaded, colours = palette();
  for (const [id, chart] of Object.entries({ series, response, heat })) {
    const place = document.getElementById(id), { data, layout, label, part } = chart(figures, colours);
    place.setAttribute("aria-label", label);
    if (!plotly) {
      place.textContent = "The charts could not be loaded; their numbers are in the tables. Reload the page to try again.";
      place.classList.add("none");
      continue;
    }
    const key = JSON.stringify([part, colours]);
    if (drawn.get(id) === key) continue;
    drawn.set(id, key);
    plotly.react(place, data, { ...base(colours), ...layout }, CONFIG);
  }
}

function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "quiet", "line", "card", "accent", "second", "low"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function base(colours) {
  return {
    autosize: true, showlegend: false, dragmode: false, bargap: 0.4, bargroupgap: 0.05,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.quiet },
    hoverlabel: { bgcolor: colours.card, bordercolor: colours.line, font: { color: colours.ink, size: 12 } },
  };
}

const axis = (colours) => ({ fixedrange: true, ticks: "", gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line });

function series({ series, since, ends_at: end, unit, totals }, colours) {
  const columns = { x: series.at.map((iso) => iso.slice(0, 19)), xperiod: LENGTH_MS[unit], xperiodalignment: "middle" };
  const column = (name, numbers, colour, yaxis) =>
    ({ ...columns, type: "bar", name, y: numbers, yaxis, marker: { color: colour }, hovertemplate: "%{y:,d}" });
  const medians = series.first_response_median_s, scale = durations(medians);
  const panel = (y, text) => ({
    xref: "paper", yref: "paper", x: 0, y, xanchor: "left", yanchor: "bottom", showarrow: false, text, font: { color: colours.ink },
  });
  const key = (colour, words) => `<span style="color:${colour}">■</span> ${words}`;
  const counted = { ...axis(colours), rangemode: "tozero", tickformat: ",d" };
  return {
    part: [series, since, end],
    label: `Messages, customers and first response by ${unit}: ${count(totals.inbound)} messages in, ${count(totals.outbound)} out, `
      + `most in ${most(series.inbound, (index) => moment(series.at[index], unit))}`,
    data: [
      column("Messages in", series.inbound, colours.accent, "y"),
      column("Messages out", series.outbound, colours.second, "y"),
      column("Active customers", series.active_customers, colours.accent, "y2"),
      column("New customers", series.new_customers, colours.second, "y2"),
      {
        ...columns, type: "scatter", mode: "lines+markers", name: "First response", y: medians, yaxis: "y3",
        line: { color: colours.accent, width: 2 }, marker: { size: 5 }, text: medians.map(duration), hovertemplate: "%{text}",
      },
    ],
    layout: {
      margin: { l: 52, r: 8, t: 20, b: 40 }, hovermode: "x unified", hoversubplots: "axis",
      xaxis: {
        ...axis(colours), anchor: "y3", range: [since.slice(0, 19), end.slice(0, 19)], showgrid: false, tickangle: 0, ticklabelstandoff: 6,
        nticks: Math.floor(document.getElementById("series").clientWidth / TICK_WIDTH_PX),
        type: "date", tickformat: unit === "hour" ? "%H:%M\n%a %-d %b" : "%-d %b\n%Y", hoverformat: unit === "hour" ? "%a %-d %b, %H:%M" : "%a %-d %b",
      },
      yaxis: { ...counted, domain: [0.6, 1], nticks: 6, ...atLeast(series.inbound, series.outbound) },
      yaxis2: { ...counted, domain: [0.3, 0.5], nticks: 4, ...atLeast(series.active_customers) },
      yaxis3: { ...axis(colours), domain: [0, 0.2], range: [0, scale.end], tickvals: scale.ticks, ticktext: scale.ticks.map(duration) },
      annotations: [
        panel(1, `<b>Messages</b>   ${key(colours.accent, "in")}   ${key(colours.second, "out")}`),
        panel(0.5, `<b>Customers</b>   ${key(colours.accent, "active")}   ${key(colours.second, "new")}`),
        panel(0.2, "<b>First response</b>   median"),
      ],
    },
  };
}

/** A scale of whole numbers does not end below 4, or plotly would tell 0.5 of a message. */
function atLeast(...columns) {
  return Math.max(...columns.flat()) < 4 ? { range: [0, 4], dtick: 2 } : {};
}

function durations(seconds) {
  const end = Math.max(1, ...seconds) * 1.1;
  const step = STEPS_S.find((candidate) => end / candidate <= TICKS_MAX) ?? Math.ceil(end / TICKS_MAX / 86400) * 86400;
  return { end, ticks: Array.from({ length: Math.floor(end / step) + 1 }, (_, index) => index * step) };
}

function most(numbers, name) {
  const highest = Math.max(...numbers);
  return highest > 0 ? `${name(numbers.indexOf(highest))} with ${count(highest)}` : "nowhere";
}

function response({ response_histogram: histogram }, colours) {
  const names = histogram.upper_s.map(upTo);
  return {
    part: histogram,
    label: `First responses by how long they took: ${names.map((name, index) => `${name} ${count(histogram.count[index])}`).join(", ")}`,
    data: [{
      type: "bar", x: names, y: histogram.count, marker: { color: colours.accent }, text: histogram.count.map(count),
      textposition: "outside", cliponaxis: false, textfont: { color: colours.ink }, hovertemplate: "%{x}: %{y:,d}<extra></extra>",
    }],
    layout: {
      margin: { l: 8, r: 8, t: 20, b: 44 },
      xaxis: { ...axis(colours), type: "category", showgrid: false, tickangle: 0, tickfont: { size: 11 } },
      yaxis: { fixedrange: true, visible: false, range: [0, Math.max(1, ...histogram.count) * 1.1] },
    },
  };
}

function heat({ heat: counts }, colours) {
  const highest = Math.max(...counts.flat()), hours = Array.from({ length: 24 }, (_, hour) => String(hour).padStart(2, "0"));
  return {
    part: counts,
    label: `Messages in by weekday and hour, UTC: most ${most(counts.flat(), (index) => `${WEEKDAYS[Math.floor(index / 24)]} at ${hours[index % 24]}:00`)}`,
    data: [{
      type: "heatmap", z: counts, x: hours, y: WEEKDAYS.map((name) => name.slice(0, 3)), xgap: 2, ygap: 2,
      colorscale: [[0, colours.low], [1, colours.accent]], zmin: 0, zmax: Math.max(4, highest),
      colorbar: { thickness: 8, outlinewidth: 0, nticks: 4, tickformat: ",d", len: 1, xpad: 8, ypad: 0 },
      hovertemplate: "%{y} %{x}:00, %{z:,d} in<extra></extra>",
    }],
    layout: {
      margin: { l: 40, r: 8, t: 4, b: 28 },
      xaxis: { ...axis(colours), type: "category", showgrid: false, tickvals: hours.filter((_, hour) => hour % 3 === 0) },
      yaxis: { ...axis(colours), type: "category", showgrid: false, autorange: "reversed" },
    },
  };
}
