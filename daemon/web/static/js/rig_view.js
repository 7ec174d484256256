// The rig itself: calibration step by step, models, health, events, and other rigs of the broker.

import { badge, button, confirmed, field, h, notice, scroll, show } from "./dom.js";
import { call } from "./api.js";
import { dayAndClock, distinctEvents, duration, eventText, label, megabytes, percent, plural } from "./format.js";
import { movingChannels } from "./signals.js";

const CALIBRATION = { none: "not calibrated", ok: "in force", recalibrate: "clean air has drifted: calibrate again", unusable: "cannot be used" };

// Rows of the list of rigs; of a larger fleet, a part of the name finds the others.
const RIGS_SHOWN = 30;

export class RigView {
  title = "Rig";

  constructor({ rig, live, requests, rigs }) {
    Object.assign(this, { rig, live, requests, rigs });
    this.calibration = h("div", {}, h("p", { class: "muted" }, "Loading ..."));
    this.capturing = h("div", { role: "status" });
    this.models = h("div", {}, h("p", { class: "muted" }, "Loading ..."));
    this.card = h("div", {});
    this.health = h("div", {});
    this.events = h("div", {});
    this.others = h("div", {});
    this.wanted = h("input", { type: "search", autocomplete: "off", oninput: () => this.drawOthers() });
    this.search = h("div", {}, field("Part of a name", this.wanted));
    this.element = h("div", {}, h("h1", {}, "The rig"),
      h("div", { class: "columns" },
        h("div", {},
          h("section", { class: "card" }, h("h2", {}, "Health"), this.health),
          h("section", { class: "card" }, h("h2", {}, "Rigs of this broker"), this.search, this.others)),
        h("section", { class: "card" }, h("h2", {}, "Calibration"), this.calibration, this.capturing)),
      h("section", { class: "card" }, h("h2", {}, "Models"), this.models, this.card),
      h("section", { class: "card" }, h("h2", {}, "Log of events"), this.events));
    this.onChange = (event) => {
      if (["health", "info", "status", "all"].includes(event.detail)) this.drawHealth();
      if (event.detail === "event" || event.detail === "all") this.drawEvents();
      if (event.detail === "readings") this.showSettled();
    };
    this.onChanged = (event) => {
      if (event.detail.command === "calibrate") this.loadCalibration();
      if (event.detail.command === "models") this.loadModels();
    };
    this.onRigs = (event) => { this.rigs = event.detail.rigs; this.drawOthers(); };
  }

  open() {
    this.rig.addEventListener("change", this.onChange);
    this.live.addEventListener("changed", this.onChanged);
    this.live.addEventListener("rigs", this.onRigs);
    this.drawHealth();
    this.drawEvents();
    this.drawOthers();
    if (!this.rig.rig) return;
    this.loadCalibration();
    this.loadModels();
  }

  close() {
    this.rig.removeEventListener("change", this.onChange);
    this.live.removeEventListener("changed", this.onChanged);
    this.live.removeEventListener("rigs", this.onRigs);
  }

  drawHealth() {
    const { health, info } = this.rig;
    if (!health) {
      show(this.health, h("p", { class: "muted" }, "The rig has not published its health yet."));
      return;
    }
    const bad = Object.entries(health.channels ?? {}).filter(([, quality]) => !["ok", "spike"].includes(quality));
    const recording = health.recording;
    show(this.health, h("dl", { class: "facts" },
      fact("Board", badge(health.board.state, health.board.state === "online" ? "good" : "bad"), health.board.why ? ` ${health.board.why}` : ""),
      fact("Readings", `${health.frames_ok} at ${health.rate_hz?.toPrecision(3) ?? "?"} Hz, ${health.frames_lost} lost`),
      fact("Channels", bad.length ? bad.map(([name, quality]) => badge(`${label(name)}: ${label(quality)}`, quality === "missing" ? "" : "warn")) : "all usable"),
      fact("Broker", `${health.broker.state}, MQTT ${health.broker.protocol ?? "?"}, connection ${health.broker.connections}`),
      fact("Outbox", `${plural(health.outbox_depth, "message waits", "messages wait")}, ${health.outbox_dropped} lost`),
      fact("Recording", badge(recording.state, recording.state === "recording" ? "good" : recording.state === "paused" ? "bad" : ""), ` ${megabytes(recording.kept_mb * 1e6)} kept `,
        button(recording.state === "off" ? "Start recording" : "Stop recording", () => this.record(recording.state === "off" ? "start" : "stop"))),
      fact("Inference", Object.entries(health.inference_ms).filter(([, times]) => times.p50).map(([name, times]) => `${name} ${times.p50.toPrecision(2)} ms`).join(", ") || "none yet"),
      fact("Process", `${health.rss_mb} MB, up for ${duration(health.uptime_s)}, scentd ${info?.scentd_version ?? "?"}`)));
  }

  async record(action) {
    try {
      const { recording } = await this.requests.send("record", { action });
      // Health says it too, but only every few seconds.
      if (this.rig.health) Object.assign(this.rig.health.recording, recording);
      this.drawHealth();
      notice(action === "start" ? "The rig records from the next reading on." : "The recording was closed.");
    } catch (error) {
      notice(error.message);
    }
  }

  drawEvents() {
    const events = distinctEvents(this.rig.events).slice(-40).reverse();
    show(this.events, events.length ? h("ul", { class: "plain small log" }, events.map((event) => h("li", {},
      h("span", { class: "muted" }, `${dayAndClock(event.ts)} `), eventText(event)))) : h("p", { class: "muted" }, "No event since this page's server started."));
  }

  drawOthers() {
    this.search.hidden = this.rigs.length <= RIGS_SHOWN;
    const wanted = this.search.hidden ? "" : this.wanted.value.trim();
    const found = this.rigs.filter((item) => item.rig.includes(wanted));
    const online = this.rigs.filter((item) => item.status === "online").length;
    const more = found.length - RIGS_SHOWN;
    show(this.others, this.search.hidden ? null : h("p", { class: "muted" }, `${online} of ${this.rigs.length} are online.`),
      h("ul", { class: "plain" }, found.slice(0, RIGS_SHOWN).map((item) => h("li", { class: "row middle" },
      h("b", {}, item.rig), badge(item.status ?? "never seen", item.status === "online" ? "good" : "bad"),
      item.rig === this.rig.rig ? badge("shown") : button("Show", () => {
        localStorage.setItem("rig", item.rig);
        document.getElementById("rig").value = item.rig;
        this.live.watch(item.rig);
      }, { "aria-label": `Show rig ${item.rig}` })))),
      more > 0 ? h("p", { class: "muted" }, `${more} more.`) : null);
  }

  async loadCalibration() {
    try {
      this.drawCalibration(await this.requests.send("calibrate", { action: "show" }));
    } catch (error) {
      show(this.calibration, h("p", { class: "muted" }, error.message));
    }
  }

  drawCalibration(data) {
    const { captures, profile, in_force: report } = data;
    const clean = captures.filter((item) => item.kind === "baseline");
    const odours = captures.filter((item) => item.kind === "reference");
    const choice = h("select", {}, this.rig.knownLabels.map((name) => h("option", { value: name }, label(name))));
    const kinds = { ok: "good", recalibrate: "warn", unusable: "bad" };
    show(this.calibration,
      h("p", {}, "State: ", badge(CALIBRATION[report.state] ?? report.state, kinds[report.state] ?? ""), report.why ? ` ${report.why}` : "", profile ? h("span", { class: "muted small" }, ` profile ${profile.id} of ${dayAndClock(profile.date)}`) : null),
      h("p", { class: "small muted" }, "Needed only for the names of a shipped model. Smells that you teach need no calibration."),
      this.settled = h("p", { class: "small", role: "status" }),
      h("ol", { class: "steps" },
        h("li", { class: clean.length ? "done" : "" }, h("b", {}, "Clean air. "), "No sample near the sensors, for two minutes. ",
          h("div", { class: "row" }, button("Measure clean air", () => this.capture({ action: "baseline", seconds: 120 })), clean.length ? `${clean.length} kept, the last of ${dayAndClock(clean.at(-1).taken)}` : "")),
        h("li", { class: odours.length >= 4 ? "done" : "" }, h("b", {}, "Four smells that the model knows. "), "Hold each to the sensors for two minutes, then measure five. ",
          choice.options.length ? h("div", { class: "row" }, field("Smell", choice), button("Measure it", () => this.capture({ action: "reference", label: choice.value, seconds: 300 }))) : null,
          odours.length ? h("ul", { class: "plain small" }, odours.map((item) => h("li", {}, `${label(item.label)}, ${duration(item.seconds)} `, button("forget", () => this.calibrate({ action: "forget", label: item.label }), { class: "link", "aria-label": `Forget the reference ${label(item.label)}` })))) : null),
        h("li", { class: profile ? "done" : "" }, h("b", {}, "Fit. "), h("div", { class: "row" },
          button("Fit the profile", () => this.fit(), { class: "main", disabled: !captures.length }),
          button("Undo the last step", () => this.calibrate({ action: "undo" }), { disabled: !captures.length && !profile }))),
        h("li", {}, h("b", {}, "Judge it. "), h("div", { class: "row" }, button("Score it on the references", () => this.score(), { disabled: !odours.length })))));
    this.showSettled();
  }

  showSettled() {
    if (!this.settled) return;
    const moving = movingChannels(this.rig.readings);
    this.settled.textContent = moving === null ? "" : moving.length ? `Still changing: ${moving.map(label).join(", ")}. Wait before you measure.` : "All channels are steady: you can measure.";
  }

  async capture(payload) {
    const ended = await this.calibrate(payload, "Measuring ...");
    if (ended) notice("Kept.");
  }

  async calibrate(payload, text = "") {
    try {
      if (text) show(this.capturing, h("p", { class: "answer" }, text));
      const data = await this.requests.send("calibrate", payload, (progress) => this.showCapture(progress));
      show(this.capturing);
      await this.loadCalibration();
      return data;
    } catch (error) {
      show(this.capturing, h("p", { class: "answer bad", role: "alert" }, error.message));
      return null;
    }
  }

  async fit() {
    const data = await this.calibrate({ action: "fit" }, "Fitting takes some seconds ...");
    if (data?.advice) show(this.capturing, h("p", { class: "answer warn" }, data.advice));
  }

  showCapture({ doing, seconds, of_s: whole, settled, unsettled }) {
    if (doing !== "capturing") return;
    show(this.capturing, h("div", { class: "answer" },
      h("p", {}, `Measured ${duration(seconds)} of ${duration(whole)}. `, settled ? badge("settled", "good") : badge(`not settled: ${unsettled.map(label).join(", ")}`, "warn")),
      h("progress", { value: seconds, max: whole, "aria-label": "Progress of the measurement" })));
  }

  async score() {
    try {
      show(this.capturing, h("p", { class: "answer" }, "Scoring ..."));
      const data = await this.requests.send("calibrate", { action: "score" });
      show(this.capturing, scored(data));
    } catch (error) {
      show(this.capturing, h("p", { class: "answer bad" }, error.message));
    }
  }

  async loadModels() {
    try {
      this.drawModels((await this.requests.send("models", { action: "list" })).models);
    } catch (error) {
      show(this.models, h("p", { class: "muted" }, error.message));
    }
  }

  drawModels(models) {
    const running = new Map((this.rig.info?.models ?? []).map((model) => [model.name, model]));
    show(this.models, scroll("Models", h("table", {},
      h("thead", {}, h("tr", {}, ["Model", "Version", "Runs", "Labels", "Actions"].map((text) => h("th", { scope: "col", class: text === "Labels" ? "number wide" : null }, text)))),
      h("tbody", {}, models.map((model) => {
        const info = running.get(model.name);
        const versions = [...(model.shipped ? ["shipped"] : []), ...model.installed.map((item) => item.version)];
        const choice = h("select", { "aria-label": `Version of ${model.name}` }, versions.map((version) => h("option", { value: version }, version === "shipped" ? `shipped (${model.shipped})` : version)));
        if (model.active) choice.value = model.active;
        return h("tr", {}, h("th", { scope: "row" }, model.name),
          h("td", {}, versions.length > 1 ? choice : model.active === "shipped" ? model.shipped : model.active ?? "-"),
          h("td", {}, info ? badge(info.precision, "good") : model.configured ? badge("not loaded", "bad") : badge("not configured"), " ", info?.foreign_board ? badge("unlike the model's own board", "warn") : null),
          h("td", { class: "number wide" }, info?.labels.length ?? ""),
          h("td", {}, h("div", { class: "row" },
            versions.length > 1 ? button("Switch", () => this.switchModel({ action: "switch", name: model.name, version: choice.value }), { "aria-label": `Switch ${model.name} to the chosen version` }) : null,
            model.previous ? button(`Back to ${model.previous}`, () => this.switchModel({ action: "rollback", name: model.name }), { "aria-label": `Return ${model.name} to ${model.previous}` }) : null,
            button("Card", () => this.openCard(model.name, versions.length > 1 ? choice.value : versions[0]), { "aria-label": `Card of ${model.name}` }))));
      })))));
  }

  async switchModel(payload) {
    if (payload.action === "switch" && !await confirmed(`Switch ${payload.name}?`, "The version is tried first. If anything is wrong, the present one stays.", "Switch")) return;
    try {
      await this.requests.send("models", payload);
      notice(`${payload.name} was switched.`);
    } catch (error) {
      notice(error.message);
    }
    this.loadModels();
  }

  async openCard(name, wanted) {
    try {
      const { text, version } = await call(`api/rigs/${this.rig.rig}/models/${encodeURIComponent(name)}/card?version=${encodeURIComponent(wanted)}`);
      show(this.card, h("section", { "aria-label": `Card of ${name}` }, h("h3", {}, `Card of ${name} ${version}${wanted === "shipped" ? ", as shipped" : ""}`), markdown(text), button("Close the card", () => show(this.card))));
    } catch (error) {
      show(this.card, h("p", { class: "answer warn", role: "status" }, error.message));
    }
    this.card.scrollIntoView({ block: "nearest" });
  }
}

// The score of a calibration on its references.
function scored({ model, before, after, files }) {
  const likeliest = (result) => (result?.label ? `${label(result.label)} ${percent(result.probability)}` : "-");
  return h("div", { class: "answer" },
    h("p", {}, `${model} names ${percent(before.recordings)} of the references rightly${after ? `, and ${percent(after.recordings)} with the calibration` : ". No calibration is fitted yet"}.`),
    scroll("Score of the references", h("table", {},
      h("thead", {}, h("tr", {}, ["Reference", "Likeliest before", "With the calibration"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, files.map((item) => h("tr", {}, h("th", { scope: "row" }, label(item.label)), h("td", {}, likeliest(item.before)), h("td", {}, likeliest(item.after))))))),
    h("p", { class: "small" }, "The calibration was fitted to these references. Other recordings say more: scentd calibrate score."));
}

const fact = (name, ...values) => [h("dt", {}, name), h("dd", {}, values)];

// Headings, paragraphs, lists, code and tables of a card, as elements: no markup is ever parsed.
function markdown(text) {
  const blocks = text.replace(/^---\n[\s\S]*?\n---\n/, "").split(/\n{2,}/);
  return blocks.map((block) => {
    const lines = block.trim().split("\n");
    const heading = lines[0].match(/^(#{1,6}) (.*)/);
    if (heading && lines.length === 1) return h("h3", {}, plain(heading[2]));
    if (lines[0].startsWith("|")) return table(lines);
    if (/^[-*] /.test(lines[0])) return h("ul", {}, block.trim().split(/\n(?=[-*] )/).map((item) => h("li", {}, plain(item.replace(/^[-*] /, "")))));
    if (lines[0].startsWith("```")) return h("pre", { class: "small scroll", tabindex: 0 }, lines.slice(1, -1).join("\n"));
    return h("p", {}, plain(block));
  });
}

const plain = (text) => text.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/[*`]{1,2}/g, "").replaceAll("\n", " ");

function table(lines) {
  const rows = lines.filter((line) => !/^\|[\s:|-]+\|$/.test(line)).map((line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => plain(cell.trim())));
  return scroll("Table", h("table", {},
    h("thead", {}, h("tr", {}, rows[0].map((cell) => h("th", { scope: "col" }, cell)))),
    h("tbody", {}, rows.slice(1).map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}
