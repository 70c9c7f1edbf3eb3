// Words, numbers and tables. Whatever comes from a record is put in as textContent: it is hostile input.

const whole = new Intl.NumberFormat("en");
export const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const NONE = "–";

export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export const count = (number) => (number === null || number === undefined ? NONE : whole.format(number));

export const share = (part) => (part === null || part === undefined ? NONE : `${Math.round(part * 100)}%`);

/** Seconds in the two units that say most: `850 ms`, `4.2 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  for (const [size, unit, part, partUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    const parts = Math.round(rounded / part);
    if (parts < size / part) continue;
    const rest = parts % (size / part);
    return `${Math.floor(parts / (size / part))} ${unit}${rest ? ` ${rest} ${partUnit}` : ""}`;
  }
  return `${rounded} s`;
}

export const upTo = (seconds) => (seconds === null ? "longer" : `≤ ${duration(seconds)}`);

const day = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
export const dayOf = (iso) => day.format(new Date(iso));

/** `14:00`, or `Mon 2 Nov`, or both where hours are of more than one day. */
export function moment(iso, unit, { withDay = true } = {}) {
  if (unit === "day") return dayOf(iso);
  return withDay ? `${dayOf(iso)} ${iso.slice(11, 16)}` : iso.slice(11, 16);
}

/** Rows of a name, a bar in proportion to its number, the number, and further cells; most first. */
export function bars(table, rows, none) {
  const body = table.tBodies[0];
  table.tHead.hidden = rows.length === 0;
  if (rows.length === 0) {
    const row = make("tr"), cell = make("td", "none", none);
    cell.colSpan = 9;
    row.append(cell);
    body.replaceChildren(row);
    return;
  }
  const most = Math.max(1, ...rows.map(([, number]) => number));
  body.replaceChildren(...rows.map(([name, number, ...further]) => {
    const row = make("tr"), head = make("th", "name", name), cell = make("td", "share"), bar = make("i");
    head.scope = "row";
    head.title = name;
    head.dir = "auto";
    bar.style.inlineSize = `${100 * number / most}%`;
    cell.append(bar);
    row.append(head, cell, make("td", "number", count(number)), ...further.map((text) => make("td", "number quiet", text)));
    return row;
  }));
}

/** A plain table: one row of heads, and rows that begin with theirs. */
export function plain(place, heads, rows) {
  const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  heads.forEach((text, index) => {
    const cell = make("th", index ? "number" : "", text);
    cell.scope = "col";
    head.append(cell);
  });
  for (const [name, ...cells] of rows) {
    const row = body.insertRow(), first = make("th", "name", name);
    first.scope = "row";
    row.append(first, ...cells.map((text) => make("td", "number", text)));
  }
  place.replaceChildren(table);
}
