// What the rig smells now: in words, as bars and as curves, and the odours of the day.

import { badge, h, show, svg } from "./dom.js";
import { STATES, clock, dayAndClock, distinctEvents, duration, eventText, label, maker, percent, plural } from "./format.js";
import { CurveChart, ENVIRONMENT, GAS, columns } from "./chart.js";
import { call } from "./api.js";
import { CHANNELS, aboveCleanAir, cleanAir, cleanestRows } from "./signals.js";

const STRIP_LEAST_MS = 300_000;
const DRAW_EVERY_MS = 500;
const QUIET = ["ambient", "warming_up", "recovering"];

export class NowView {
  title = "Now";

  constructor({ rig, requests }) {
    this.rig = rig;
    this.requests = requests;
    this.earlier = [];
    this.heroPlace = h("div", {});
    this.cards = h("div", { class: "columns" });
    this.strip = h("div", {});
    this.list = h("ul", { class: "plain small" });
    this.gas = new CurveChart({ channels: GAS, key: "now gas", height: 280, title: "Gas channels above clean air over the last ten minutes", unit: "ln conductance", xLabel: "minutes", range: [-600, 0] });
    this.air = new CurveChart({ channels: ENVIRONMENT, key: "now air", height: 150, title: "Temperature, pressure, humidity and altitude against clean air", unit: "change", xLabel: "minutes", range: [-600, 0] });
    this.curveNote = h("p", { class: "muted small" });
    this.element = h("div", {},
      h("h1", { class: "visually-hidden" }, "What the rig smells now"),
      this.heroPlace, this.cards,
      h("section", { class: "card" }, h("h2", {}, "Channels above clean air, last 10 minutes"), this.gas.element, this.air.element, this.curveNote),
      h("section", { class: "card" }, h("h2", {}, "Today"), this.strip, h("details", {}, h("summary", {}, "Events"), this.list)));
    this.onChange = (event) => this.update(event.detail);
    this.drawn = 0;
  }

  open() {
    this.rig.addEventListener("change", this.onChange);
    this.update("all");
    if (this.rig.rig) this.loadEarlier();
    this.timer = setInterval(() => this.drawStrip(), 15_000);
  }

  close() {
    this.rig.removeEventListener("change", this.onChange);
    clearInterval(this.timer);
    this.gas.destroy();
    this.air.destroy();
  }

  // Announcements of today from before the server of this page was started.
  async loadEarlier() {
    try {
      const { announcements } = await this.requests.send("feedback", { action: "list", last: 200 });
      const first = new Date(this.rig.events[0]?.ts ?? Date.now()).getTime();
      this.earlier = announcements.filter((item) => item.type !== "listed" && new Date(item.ts).getTime() < first).reverse();
      this.drawStrip();
    } catch { /* a rig of an earlier version */ }
  }

  // Readings from before the page was opened, as far as the rig records.
  async loadHistory() {
    const segment = this.rig.health?.recording?.segment;
    const [first] = this.rig.readings;
    if (this.filled || !segment || !first || !this.rig.hasRecordings) return;
    this.filled = true;
    if (first[0] <= Math.max(1000, this.rig.readings.at(-1)[0] - 600_000)) return;
    const query = new URLSearchParams({ start_ms: Math.max(0, this.rig.readings.at(-1)[0] - 600_000), end_ms: Math.max(0, first[0] - 1), points: 300 });
    try {
      const curve = await call(`api/rigs/${this.rig.rig}/recordings/${encodeURIComponent(segment)}/curve?${query}`);
      const rows = curve.t_ms.map((t, place) => [t, ...CHANNELS.map(({ name }) => curve.channels[name]?.[place] ?? null)]);
      this.rig.readings = [...rows.filter((row) => row[0] < this.rig.readings[0][0]), ...this.rig.readings];
      this.drawCurves(true);
    } catch { /* the segment began just now */ }
  }

  update(what) {
    if (what !== "readings") this.drawPredictions();
    if (what === "event" || what === "all") this.drawStrip();
    if (what === "readings" || what === "all") this.drawCurves(what === "all");
  }

  drawPredictions() {
    const [first, ...rest] = this.rig.ordered;
    const others = rest.filter((item) => !saysTheSame(item, first));
    const models = this.rig.info?.models ?? [];
    show(this.heroPlace, first ? hero(first, models) : h("section", { class: "card hero" },
      h("p", { class: "state" }, "Waiting"), h("p", { class: "words" }, "Nothing yet"),
      h("p", { class: "muted" }, "The rig has published no prediction yet. It needs about a minute of readings.")));
    show(this.cards, others.map((item) => h("section", { class: "card" },
      h("h2", {}, item.topic === "mixture" ? "As a mixture" : "As a single smell"),
      h("p", { class: "state" }, words(item)), details(item, models))));
    this.cards.hidden = !others.length;
  }

  drawCurves(now) {
    if (!now && performance.now() - this.drawn < DRAW_EVERY_MS) return;
    this.drawn = performance.now();
    const rows = this.rig.readings;
    this.loadHistory();
    const clean = cleanAir(this.cleanRows(rows));
    const data = aboveCleanAir(rows, clean);
    this.gas.draw(columns(data, GAS));
    this.air.draw(columns(data, ENVIRONMENT));
    this.curveNote.textContent = rows.length ? this.cleanNote
      : "Waiting for readings. They are asked of the rig only while a page is open.";
  }

  // Readings of clean air: from the last end of an odour, or start, to the next onset.
  cleanRows(rows) {
    if (!rows.length) return rows;
    const first = rows[0][0];
    let quiet = [];
    let from = first;
    for (const event of this.rig.events) {
      if (event.t_ms === null || event.t_ms === undefined) continue;
      if (event.type === "onset") {
        const stretch = rows.filter((row) => row[0] >= from && row[0] < event.t_ms - 20_000);
        if (stretch.length >= 5) quiet = stretch.slice(-60);
      }
      if (event.type === "ended") from = event.t_ms;
    }
    if (quiet.length) {
      this.cleanNote = "Clean air is the median of the minute before the latest odour.";
      return quiet;
    }
    this.cleanNote = "Until an odour begins, the readings in which the channels stand lowest are taken for clean air.";
    return cleanestRows(rows);
  }

  drawStrip() {
    show(this.strip, strip(this.rig.events, this.earlier));
    show(this.list, distinctEvents(this.rig.events).slice(-25).reverse().map((event) => h("li", {},
      h("span", { class: "muted" }, `${dayAndClock(event.ts)} `), eventText(event))));
  }
}

// In clean air all say the same, and so does the mixture whose only component is the single smell.
function saysTheSame({ topic, payload }, first) {
  if (payload.state !== first.payload.state) return false;
  return QUIET.includes(payload.state) || (topic === "mixture" && payload.state === "recognised" && payload.components.length === 1 && payload.components[0].label === first.payload.label);
}

function words({ topic, payload }) {
  if (payload.state === "recognised") {
    if (topic === "mixture") {
      if (payload.components.length) return payload.components.map((part) => label(part.label)).join(" + ");
      if (payload.groups.length) return `one of ${payload.groups[0].labels.map(label).join(", ")}`;
    }
    if (payload.label) return label(payload.label);
  }
  return STATES[payload.state] ?? payload.state;
}

function hero(item, models) {
  const { topic, payload } = item;
  const recognised = payload.state === "recognised";
  const list = payload.short_list?.labels ?? [];
  return h("section", { class: `card hero ${payload.state}` },
    h("p", { class: "state" }, recognised ? (topic === "mixture" ? "A mixture of" : "It smells of") : list.length ? "Probably one of" : "The air"),
    h("p", { class: "words", role: "status" }, !recognised && list.length ? list.map(label).join(", ") : words(item)),
    recognised && payload.probability !== null && payload.probability !== undefined ? h("p", { class: "probability" }, `${percent(payload.probability)} probable`) : null,
    !recognised && list.length ? h("p", { class: "probability" }, `the truth is among them in ${percent(payload.short_list.coverage)} of cases`) : null,
    details(item, models));
}

function details({ topic, payload }, models) {
  const novelty = ["sensing", "recognised", "unrecognised"].includes(payload.state) ? payload.novelty ?? null : null;
  const limit = payload.taught ? null : models.find((model) => model.name === payload.model)?.trust?.unknown_above ?? null;
  const facts = [
    payload.taught ? badge(maker("taught"), "good") : payload.model === "taught" ? null : badge(maker(payload.model)),
    payload.channels_missing?.length ? badge(`missing: ${payload.channels_missing.map(label).join(", ")}`, "warn") : null,
    payload.foreign_board ? badge("unlike the model's own board", "warn") : null,
    payload.resampled ? badge("interpolated to the model's rate") : null,
    novelty === null ? null : badge(noveltyText(novelty, limit), limit !== null && novelty >= limit ? "warn" : ""),
    payload.unexplained ? badge("something unknown in it", "warn") : null,
    badge(payload.window_s ? `${clock(payload.ts)}, from ${duration(payload.window_s)} of readings` : clock(payload.ts)),
  ];
  return [
    topic === "mixture" ? mixtureBars(payload) : substanceBars(payload),
    payload.set && ["sensing", "recognised"].includes(payload.state) ? h("p", { class: "small" }, `In ${percent(payload.set.coverage)} of cases the truth is one of: ${payload.set.labels.slice(0, 8).map(label).join(", ")}${payload.set.labels.length > 8 ? ` and ${payload.set.labels.length - 8} more` : ""}.`) : null,
    payload.descriptors?.length ? h("p", { class: "small" }, `It is similar to: ${payload.descriptors.map((item) => item.name).join(", ")}.`) : null,
    payload.reason ? h("p", { class: "answer warn small" }, payload.reason) : null,
    h("div", { class: "badges" }, facts),
  ];
}

function noveltyText(novelty, limit) {
  return `novelty ${novelty.toPrecision(3)}${limit === null ? "" : `, unknown from ${limit.toPrecision(3)} on`}`;
}

function substanceBars(payload) {
  const quiet = ["ambient", "warming_up", "disabled", "fault", "recovering"].includes(payload.state);
  if (quiet || !payload.top.length) return null;
  return h("ul", { class: "bars", "aria-label": "The likeliest smells" }, payload.top.slice(0, 3).map((item) => bar(item.label, item.probability)));
}

function mixtureBars(payload) {
  const parts = payload.components;
  return [
    parts.length ? h("ul", { class: "bars", "aria-label": "Components and their proportions" }, parts.map((part) => bar(part.label, part.proportion, part.low, part.high))) : null,
    payload.groups.length ? h("ul", { class: "plain small" }, payload.groups.map((group) => h("li", {}, `At least one of ${group.labels.map(label).join(", ")}, which cannot be told apart: ${percent(group.presence)}`))) : null,
    !parts.length && payload.state === "sensing" && payload.candidates.length ? h("ul", { class: "bars", "aria-label": "Candidates" }, payload.candidates.slice(0, 3).map((part) => bar(part.label, part.presence))) : null,
  ];
}

function bar(name, value, low = null, high = null) {
  const share = (number) => `${Math.max(0, Math.min(1, number ?? 0)) * 100}%`;
  const text = low === null || high === null ? percent(value) : `${percent(value)} (${Math.round(low * 100)}-${Math.round(high * 100)})`;
  return h("li", {}, h("span", { class: "name" }, label(name)),
    svg("svg", { "aria-hidden": "true", preserveAspectRatio: "none" },
      svg("rect", { class: "track", x: 0, y: 2, width: "100%", height: 12, rx: 3 }),
      low === null || high === null ? null : svg("rect", { class: "interval", x: share(low), y: 2, width: share(high - low), height: 12 }),
      svg("rect", { class: "bar", x: 0, y: low === null ? 2 : 5, width: share(value), height: low === null ? 12 : 6, rx: 2 })),
    h("span", { class: "value" }, text));
}

// Odours from onset to end, by the time of day.
function episodes(events) {
  const found = [];
  let open = null;
  for (const event of events) {
    const at = new Date(event.ts).getTime();
    if (event.type === "onset") {
      open = { from: at, to: null, name: null, unknown: false };
      found.push(open);
    } else if (open && event.type === "recognised") {
      Object.assign(open, { name: event.label ?? event.detail, unknown: false });
    } else if (open && event.type === "unrecognised" && !open.name) open.unknown = true;
    else if (open && event.type === "ended") {
      open.to = at;
      open = null;
    }
  }
  return found;
}

function strip(events, earlier) {
  const now = Date.now();
  const midnight = new Date().setHours(0, 0, 0, 0);
  const before = earlier.map((item) => {
    const at = new Date(item.ts).getTime();
    return { from: at, to: at + 60_000, name: item.label ?? item.detail, unknown: item.type === "unrecognised" };
  });
  const today = [...before, ...episodes(events)].filter((item) => item.from >= midnight);
  const first = today.length ? today[0].from : now;
  const from = Math.min(Math.max(midnight, first - 60_000), now - STRIP_LEAST_MS);
  const x = (at) => `${(100 * (at - from)) / (now - from)}%`;
  const marks = [0, 0.25, 0.5, 0.75].map((share) => from + share * (now - from));
  const summary = today.length ? `${plural(today.length, "odour")} today: ${today.slice(-12).map((item) => `${clock(item.from)} ${item.name ? label(item.name) : item.unknown ? "unknown" : "no name"}`).join(", ")}` : "No odour today so far.";
  return [
    svg("svg", { class: "strip", role: "img", "aria-label": summary },
      svg("rect", { class: "base", x: 0, y: 4, width: "100%", height: 28, rx: 5 }),
      today.map((item) => svg("rect", {
        class: `episode ${item.name ? "" : item.unknown ? "unknown" : "unnamed"}`, x: x(item.from), y: 4, height: 28,
        width: `${Math.max(0.3, (100 * ((item.to ?? now) - item.from)) / (now - from))}%`,
      }, svg("title", {}, `${clock(item.from)} to ${item.to ? clock(item.to) : "now"}: ${item.name ? label(item.name) : item.unknown ? "unknown smell" : "no name"}`))),
      marks.map((at) => svg("text", { x: x(at), y: 48 }, new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }))),
      svg("text", { x: "100%", y: 48, "text-anchor": "end" }, "now")),
    h("p", { class: "small muted" }, summary),
  ];
}
