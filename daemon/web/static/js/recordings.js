// The recordings of the rig: list, curve, labels by dragging, cut, play back, export.

import { badge, button, confirmed, field, freshId, h, notice, scroll, show } from "./dom.js";
import { call } from "./api.js";
import { STATES, dayAndClock, duration, label, maker, megabytes, percent, plural } from "./format.js";
import { CurveChart, GAS, columns } from "./chart.js";
import { CHANNELS, cleanAir, cleanestRows, signal } from "./signals.js";

const LABEL_CHARACTERS = 64;

// When a recording of the service began, which its name says in UTC.
function begun(name) {
  const found = name.match(/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/);
  return found ? dayAndClock(`${found[1]}-${found[2]}-${found[3]}T${found[4]}:${found[5]}:${found[6]}Z`) : "";
}

export class RecordingsView {
  title = "Recordings";

  constructor({ rig, live, requests }) {
    Object.assign(this, { rig, live, requests });
    this.recordings = [];
    this.opened = null;
    this.list = h("div", {}, h("p", { class: "muted" }, "Loading ..."));
    this.detail = h("div", {});
    this.exporting = h("div", { class: "row" });
    this.element = h("div", {}, h("h1", {}, "Recordings"),
      h("section", { class: "card" }, this.list, this.exporting), this.detail);
  }

  get base() {
    return `api/rigs/${this.rig.rig}/recordings`;
  }

  open() {
    if (!this.rig.rig) return;
    if (!this.rig.hasRecordings) {
      show(this.list, h("p", { class: "muted" }, `This page reads no recordings of rig ${this.rig.rig}. They lie on another computer, whose own page shows them, or the page was started without the rig's configuration: scentd web --also FILE.`));
      return;
    }
    this.load();
  }

  close() {
    this.chart?.destroy();
  }

  async load() {
    try {
      this.recordings = (await call(this.base)).recordings;
      this.draw();
    } catch (error) {
      show(this.list, h("p", { class: "muted" }, error.message));
    }
  }

  draw() {
    const labelled = this.recordings.some((item) => item.labels.length);
    show(this.list, this.recordings.length ? scroll("Recordings of the rig", h("table", {},
      h("caption", {}, `${plural(this.recordings.length, "recording")}, the newest first`),
      h("thead", {}, h("tr", {}, ["Recording", "Begun", "Session", "Size", "Labels"].map((text) => h("th", { scope: "col", class: ["Session", "Size"].includes(text) ? "wide" : null }, text)))),
      h("tbody", {}, this.recordings.map((item) => h("tr", { class: item.name === this.opened ? "chosen" : "" },
        h("th", { scope: "row", class: "long" }, button(item.name, () => this.show(item.name), { class: "link" })),
        h("td", {}, begun(item.name)), h("td", { class: "wide" }, item.session), h("td", { class: "wide" }, megabytes(item.bytes)),
        h("td", {}, item.problem ? badge(item.problem, "bad") : [...new Set(item.labels.map((part) => part.label))].map((name) => [badge(label(name), "good"), " "]))))))) : h("div", {},
      h("p", {}, "There are no recordings yet."),
      h("p", { class: "muted" }, "The service writes every reading while the recording is on: switch it on here, or set record: true in the configuration."),
      button("Start recording", async () => { await this.requests.send("record", { action: "start" }); notice("The rig records from the next reading on."); this.load(); })));
    show(this.exporting, labelled ? [
      h("a", { href: `${this.base}/export`, download: "recordings.zip" }, "Export what is labelled"),
      h("span", { class: "small muted" }, "LABEL/SESSION/*.csv, ready for scent-train init"),
    ] : null);
  }

  async show(name) {
    this.opened = name;
    this.draw();
    try {
      const data = await call(`${this.base}/${encodeURIComponent(name)}`);
      this.drawDetail(name, data);
    } catch (error) {
      show(this.detail, h("p", { class: "answer bad", role: "alert" }, error.message));
    }
  }

  drawDetail(name, { curve, labels }) {
    this.chart?.destroy();
    this.curve = curve;
    this.labels = labels;
    const seconds = (t) => (t - curve.first_ms) / 1000;
    this.chart = new CurveChart({ channels: GAS, key: "recording", height: 300, title: `Curve of ${name}`, unit: "ln conductance", xLabel: "seconds; drag, or tap both ends", onSelect: (from, to) => this.choose(from, to), onPick: (at) => this.pick(at) });
    this.from = h("input", { type: "number", min: 0, step: "any", required: true, onchange: () => this.chosen() });
    this.to = h("input", { type: "number", min: 0, step: "any", required: true, onchange: () => this.chosen() });
    const list = freshId("labels");
    const known = [...new Set([...this.recordings.flatMap((item) => item.labels.map((part) => part.label)), ...this.rig.knownLabels])];
    this.name = h("input", { type: "text", list, maxlength: LABEL_CHARACTERS, autocomplete: "off" });
    this.labelPlace = h("div", {});
    this.replayPlace = h("div", { role: "status" });
    show(this.detail, h("section", { class: "card", "aria-label": `Recording ${name}` },
      h("h2", {}, name),
      h("p", { class: "small muted" }, `${plural(curve.readings, "reading")} over ${duration(seconds(curve.last_ms))}`),
      this.chart.element, h("datalist", { id: list }, known.map((text) => h("option", { value: text }))),
      h("form", { onsubmit: (event) => { event.preventDefault(); this.label(this.name.value.trim()); } },
        h("div", { class: "row" }, field("From, s", this.from), field("To, s", this.to), field("Label", this.name),
          h("button", { class: "main", type: "submit" }, "Label the stretch"),
          button("Remove its labels", () => this.label(null)), button("Cut it out", () => this.cut()))),
      this.labelPlace,
      h("div", { class: "row" },
        button("Play back through the models", () => this.replay(name)),
        labels.length ? h("a", { href: `${this.base}/export?name=${encodeURIComponent(name)}`, download: "recordings.zip" }, "Export its labels") : null,
        button("Remove the recording", () => this.remove(name), { class: "danger" })),
      this.replayPlace));
    this.drawLabels();
    const rows = curve.t_ms.map((t, place) => [t, ...CHANNELS.map((channel) => curve.channels[channel.name]?.[place] ?? null)]);
    const clean = cleanAir(cleanestRows(rows));
    const data = [rows.map((row) => seconds(row[0])), ...CHANNELS.map(({ part }, place) => rows.map((row) => {
      const value = signal(part, row[place + 1]);
      return value === null || clean[place] === null ? null : value - clean[place];
    }))];
    this.chart.draw(columns(data, GAS));
    this.detail.firstChild.scrollIntoView({ block: "nearest" });
  }

  drawLabels() {
    const seconds = (t) => Math.round((t - this.curve.first_ms) / 1000);
    show(this.labelPlace, this.labels.length ? h("ul", { class: "plain" }, this.labels.map((item) => h("li", { class: "row middle" },
      badge(label(item.label), "good"), `${seconds(item.start_ms)} to ${seconds(item.end_ms)} s`,
      h("span", { class: "small muted" }, item.author ? `by ${item.author}` : ""),
      button("Show", () => this.choose(seconds(item.start_ms), seconds(item.end_ms), item.label), { class: "link", "aria-label": `Show the stretch of ${label(item.label)}` })))) : h("p", { class: "small muted" }, "Nothing is labelled yet. Drag over the curve, tap both ends, or type the seconds."));
  }

  choose(from, to, name = null) {
    const last = (this.curve.last_ms - this.curve.first_ms) / 1000;
    this.from.value = Math.max(0, Math.round(from));
    this.to.value = Math.min(Math.ceil(last), Math.round(to));
    if (name) this.name.value = name;
    this.chosen();
  }

  // The first tap is the beginning of a stretch, the second its end.
  pick(at) {
    const from = Number(this.from.value);
    if (this.from.value && !this.to.value) {
      this.choose(Math.min(from, at), Math.max(from, at));
      return;
    }
    this.from.value = Math.max(0, Math.round(at));
    this.to.value = "";
  }

  chosen() {
    if (this.from.value && this.to.value) this.chart.select(Number(this.from.value), Number(this.to.value));
  }

  get stretch() {
    const at = (input) => this.curve.first_ms + Math.round(Number(input.value) * 1000);
    return { start_ms: at(this.from), end_ms: at(this.to) };
  }

  async change(action, body) {
    if (!this.from.value || !this.to.value) {
      notice("Choose a stretch first: drag over the curve, tap both ends, or type the seconds.");
      return null;
    }
    try {
      return await call(`${this.base}/${encodeURIComponent(this.opened)}/${action}`, { method: "POST", body: { ...this.stretch, ...body } });
    } catch (error) {
      notice(error.message);
      return null;
    }
  }

  async label(name) {
    if (name === "") {
      notice("Type the name of the smell.");
      return;
    }
    const data = await this.change("label", { label: name });
    if (!data) return;
    this.labels = data.labels;
    this.drawLabels();
    notice(name === null ? "The labels there were removed." : `Labelled ${label(name)}.`);
    this.load();
  }

  async cut() {
    const data = await this.change("cut", {});
    if (!data) return;
    notice(`Written as ${data.name}.`);
    this.load();
  }

  async remove(name) {
    if (!await confirmed(`Remove ${name}?`, "The file and its labels are removed from the disk. This cannot be undone.", "Remove")) return;
    try {
      await call(`${this.base}/${encodeURIComponent(name)}/remove`, { method: "POST", body: {} });
      this.opened = null;
      this.chart?.destroy();
      this.chart = null;
      show(this.detail);
      this.load();
    } catch (error) {
      notice(error.message);
    }
  }

  // Readings are evenly spaced, but for gaps.
  secondsOf(reading) {
    const { first_ms: first, last_ms: last, readings } = this.curve;
    return Math.round(((last - first) * reading) / (1000 * Math.max(1, readings - 1)));
  }

  async replay(name) {
    show(this.replayPlace, h("p", { class: "answer" }, "Playing the recording back ..."));
    try {
      const { changes, summaries } = await call(`${this.base}/${encodeURIComponent(name)}/replay`, { method: "POST", body: {} });
      show(this.replayPlace, h("div", { class: "answer" },
        summaries.map((item) => h("p", {}, h("b", {}, maker(item.model)), ": ", item.label ? `${label(item.label)} (${percent(item.probability)})` : "undecided")),
        scroll("Changes of state", h("table", {},
          h("thead", {}, h("tr", {}, ["At, s", "By", "State", "Name"].map((text) => h("th", { scope: "col", class: text === "By" ? "wide" : null }, text)))),
          h("tbody", {}, changes.map((item) => h("tr", {}, h("td", { class: "number" }, this.secondsOf(item.frame_seq)), h("td", { class: "wide" }, maker(item.model)),
            h("td", {}, STATES[item.state] ?? item.state), h("td", {}, item.label ? `${label(item.label)} ${item.probability ? percent(item.probability) : ""}` : ""))))))));
    } catch (error) {
      show(this.replayPlace, h("p", { class: "answer bad", role: "alert" }, error.message));
    }
  }
}
