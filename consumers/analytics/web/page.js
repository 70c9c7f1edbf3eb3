// What is chosen (in the address), the stream of what is told about it, and where each number goes.

import { draw } from "./charts.js";
import { WEEKDAYS, bars, count, dayOf, duration, make, moment, plain, share, upTo } from "./tables.js";

const RETRY_MS = 3000, FEED_MAX = 100, MARKED_MAX = 3, DAY_MS = 86400e3, SCHEMES = window.matchMedia("(prefers-color-scheme: dark)");
// MARKED_MAX: more at once are not marked as new; a hundred that fade cost more than all the charts.
const FORMATS = { count, duration, share };
const $ = (id) => document.getElementById(id);
let figures = null, accounts = [], stream = null, retry = 0, frame = 0, toldAt = 0, isNewChoice = true, isCaughtUp = true;
let isPaused = false, isFeedNew = true, held = [];

// What is chosen ------------------------------------------------------------------------------------------------------

function chosen() {
  const address = new URLSearchParams(location.search), query = new URLSearchParams();
  for (const name of ["account", "period", "since", "until"]) if (address.get(name)) query.set(name, address.get(name));
  return query;
}

const isoDay = (ms) => new Date(ms).toISOString().slice(0, 10);

function showChoice() {
  const query = chosen(), isDays = query.has("since") || query.has("until");
  showAccounts();
  $("period").value = isDays ? "days" : query.get("period") ?? "today";
  $("days").hidden = !isDays;
  if (isDays && Date.parse(query.get("since")) < Date.parse(query.get("until"))) {
    $("first-day").value = isoDay(Date.parse(query.get("since")));
    $("last-day").value = isoDay(Date.parse(query.get("until")) - 1);
  }
  $("json").href = `api/figures${query.size ? `?${query}` : ""}`;
}

function choose(changes) {
  const query = chosen();
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  history.pushState(null, "", query.size ? `?${query}` : location.pathname);
  follow();
}

function chooseDays() {
  const first = $("first-day").valueAsNumber, last = $("last-day").valueAsNumber;
  if (first <= last) choose({ period: "", since: isoDay(first), until: isoDay(last + DAY_MS) });
}

function follow() {
  isNewChoice = true;
  showChoice();
  connect();
}

$("choice").addEventListener("submit", (event) => event.preventDefault());
$("account").addEventListener("change", () => choose({ account: $("account").value }));
$("period").addEventListener("change", () => {
  const period = $("period").value;
  $("days").hidden = period !== "days";
  if (period !== "days") return choose({ period: period === "today" ? "" : period, since: "", until: "" });
  $("last-day").value ||= isoDay(Date.now());
  $("first-day").value ||= isoDay(Date.now() - 6 * DAY_MS);
  chooseDays();
});
for (const id of ["first-day", "last-day"]) $(id).addEventListener("change", chooseDays);
$("longer").addEventListener("click", () => choose({ period: "90d", since: "", until: "" }));
window.addEventListener("popstate", follow);

// The stream ----------------------------------------------------------------------------------------------------------

function connect() {
  clearTimeout(retry);
  stream?.close();
  isFeedNew = true;
  const query = chosen();
  if ($("with-text").checked) query.set("text", "1");
  const own = stream = new EventSource(`api/events?${query}`);
  const on = (name, take) => own.addEventListener(name, (message) => own === stream && take(JSON.parse(message.data), message));
  on("status", showStatus);
  on("accounts", (newest) => { accounts = newest; showAccounts(); });
  on("figures", (newest) => {
    figures = newest;
    toldAt = performance.now();
    sayLive();
    $("problem").hidden = true;
    frame ||= requestAnimationFrame(show);
  });
  on("feed", takeEvents);
  own.addEventListener("error", () => own === stream && explain(own, query));
}

/** A browser does not tell why a stream ended: asks again in a way that does, and comes back later. */
async function explain(lost, query) {
  lost.close();
  const stop = new AbortController();
  let answer = { status: 0 }, detail = "";
  try {
    answer = await fetch(`api/events?${query}`, { signal: stop.signal });
    if (!answer.ok) ({ detail } = await answer.json());
  } catch { /* no answer, or none of ours: as if it were away */ }
  stop.abort();
  if (lost !== stream) return;
  if (answer.status === 401) return location.reload();
  retry = setTimeout(connect, answer.ok ? 0 : RETRY_MS);
  if (answer.ok) return;
  const known = {
    404: ["unknown", `There is no event of the account ${query.get("account")} here. Choose another above; if it is new, wait: this page looks again.`],
    400: ["unknown", `This period cannot be shown: ${detail}. Choose another above.`],
    503: ["lost", `This page is one too many: ${detail}. It tries again every few seconds.`],
    500: ["lost", `The numbers stand still: ${detail}. This page tries again every few seconds.`],
  };
  const [state, words] = known[answer.status] ?? ["lost", "The connection was lost, so these numbers stand still. "
    + "Is python -m consumers.analytics running? This page tries again every few seconds."];
  document.body.dataset.state = figures ? state : "unknown";
  say("cut", state === "lost" ? "Not connected" : "Nothing to show");
  if ($("problem").textContent !== words) $("problem").textContent = words;
  $("problem").hidden = false;
}

function sayLive() {
  say("live", isCaughtUp ? "Live" : "Catching up: these numbers still grow");
}

function say(state, words) {
  if ($("status").textContent !== words) $("status").textContent = words; // said once, not with every update
  $("status").className = `status ${state}`;
}

// The figures ---------------------------------------------------------------------------------------------------------

function show() {
  frame = 0;
  for (const node of document.querySelectorAll("[data-figure]")) {
    const value = node.dataset.figure.split(".").reduce((part, name) => part?.[name], figures);
    put(node, value);
  }
  showSpan();
  const { lag, totals } = figures, most = (table) => Object.entries(table).sort(([, a], [, b]) => b - a);
  const lags = (name) => ["meta_to_bridge_median_s", "meta_to_bridge_p90_s", "bridge_to_kafka_median_s"].map((key) => duration(lag[name]?.[key]));
  bars($("fields"), most(figures.events_by_field).map(([name, events]) => [name, events, ...lags(name)]), "No events in this period.");
  bars($("postbacks"), figures.postbacks, "No taps on buttons in this period.");
  bars($("ads"), figures.ads, "No conversations from ads in this period.");
  bars($("refs"), figures.refs, "No conversations from links in this period.");
  bars($("reactions"), most(figures.reactions), "No reactions in this period.");
  bars($("attachments"), most(figures.attachments), "No attachments in this period.");
  const isEmpty = accounts.length === 0 && totals.events === 0;
  document.body.dataset.state = isEmpty ? "empty" : "shown";
  $("empty").hidden = !isEmpty;
  $("quiet").hidden = isEmpty || totals.events > 0;
  for (const details of document.querySelectorAll("details[open]")) fill(details);
  const start = toldAt;
  draw(figures).then(() => setTimeout(() => performance.measure("update", { start }))); // after it was painted
}

function put(node, value) {
  const text = FORMATS[node.dataset.as ?? "count"](value);
  if (node.textContent === text && node.value === String(value)) return;
  node.value = String(value);
  node.textContent = text;
}

function showSpan() {
  const who = figures.account_id === null ? "All accounts" : `Account ${figures.account_id}`;
  const last = new Date(Date.parse(figures.ends_at) - 1).toISOString();
  const from = dayOf(figures.since), to = dayOf(last);
  $("who").textContent = who;
  $("span").textContent = from === to ? from : `${from} to ${to}`;
  if (!isNewChoice) return;
  isNewChoice = false;
  const { inbound, outbound, unanswered } = figures.totals;
  $("spoken").textContent = `${who}, ${$("span").textContent}: ${count(inbound)} messages in, ${count(outbound)} out, ${count(unanswered)} unanswered`;
}

function showStatus(status) {
  for (const node of document.querySelectorAll("[data-status]")) put(node, status[node.dataset.status]);
  $("topics").textContent = `${status.topic_prefix}.*`;
  isCaughtUp = status.is_caught_up;
  if (figures) sayLive();
}

function showAccounts() {
  const select = $("account"), own = chosen().get("account") ?? "";
  const wanted = own && !accounts.includes(own) ? [own, ...accounts] : accounts;
  if (wanted.join() !== Array.from(select.options, (option) => option.value).slice(1).join()) {
    select.replaceChildren(select.options[0], ...wanted.map((id) => new Option(id, id)));
  }
  select.value = own;
}

const TABLES = {
  series: ({ series, unit }) => [
    [unit === "hour" ? "Hour" : "Day", "Messages in", "Messages out", "Active customers", "New customers", "First response, median"],
    series.at.map((at, index) => [
      moment(at, unit), ...["inbound", "outbound", "active_customers", "new_customers"].map((name) => count(series[name][index])),
      duration(series.first_response_median_s[index])]),
  ],
  response: ({ response_histogram: { upper_s, count: counts } }) =>
    [["Took", "First responses"], upper_s.map((seconds, index) => [upTo(seconds), count(counts[index])])],
  heat: ({ heat }) => [["Hour", ...WEEKDAYS], Array.from({ length: 24 }, (_, hour) =>
    [`${String(hour).padStart(2, "0")}:00`, ...heat.map((hours) => count(hours[hour]))])],
};

function fill(details) {
  if (figures) plain(details.lastElementChild, ...TABLES[details.dataset.table](figures));
}

for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", () => details.open && fill(details));

// The feed ------------------------------------------------------------------------------------------------------------

function takeEvents(events) {
  if (isFeedNew) { // a new stream begins with the newest events, those that are shown already among them
    held = [];
    if (!isPaused) $("feed").replaceChildren();
  }
  if (isPaused) held = held.concat(events).slice(-FEED_MAX);
  else showEvents(events, !isFeedNew && events.length <= MARKED_MAX);
  isFeedNew = false;
}

function showEvents(events, isNew) {
  const feed = $("feed");
  for (const event of events) {
    const item = make("li", isNew ? "new" : ""), time = make("time", "", event.received_at.slice(11, 19));
    item.id = `event-${event.number}`;
    time.dateTime = time.title = event.received_at;
    item.append(
      time, make("span", "topic", event.webhook_field), make("span", "account", event.account_id ?? "no account"),
      make("span", "what", event.summary ? `${event.kind}: ${event.summary}` : event.kind));
    if (event.text !== null) {
      const text = make("p", "text", event.text);
      text.dir = "auto";
      item.append(text);
    }
    const shown = document.getElementById(item.id); // an unsend takes the text from what is shown already
    if (shown) shown.replaceWith(item); else feed.prepend(item);
  }
  while (feed.childElementCount > FEED_MAX) feed.lastElementChild.remove();
  $("feed-empty").hidden = feed.childElementCount > 0;
}

$("with-text").addEventListener("change", () => { $("feed").replaceChildren(); connect(); });
$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  if (!isPaused) showEvents(held.splice(0), true);
});

// The theme -----------------------------------------------------------------------------------------------------------

$("theme").value = document.documentElement.dataset.theme ?? "";
$("theme").addEventListener("change", () => {
  const theme = $("theme").value;
  if (theme) { localStorage.setItem("theme", theme); document.documentElement.dataset.theme = theme; }
  else { localStorage.removeItem("theme"); delete document.documentElement.dataset.theme; }
  if (figures) draw(figures);
});
SCHEMES.addEventListener("change", () => figures && draw(figures));

follow();
