// Every announcement with its curve: right, wrong, or what it was; and the score by day.

import { badge, button, field, freshId, h, notice, scroll, show, svg } from "./dom.js";
import { call } from "./api.js";
import { dayAndClock, distinctAnnouncements, duration, label, maker, percent, plural } from "./format.js";
import { CHANNELS, cleanAir, signal } from "./signals.js";
import { spark } from "./teach.js";

const PAGE = 30;
const CLIP_WRITTEN_MS = 3000; // after the end of an odour its clip lies on the rig's disk

export class ReviewView {
  title = "Review";

  constructor({ rig, live, requests }) {
    Object.assign(this, { rig, live, requests });
    this.announcements = [];
    this.chosen = new Set();
    this.curves = new Map();
    this.onlyOpen = h("input", { type: "checkbox", onchange: () => this.draw() });
    this.everyList = h("input", { type: "checkbox", onchange: () => this.draw() });
    this.list = h("div", {}, h("p", { class: "muted" }, "Loading ..."));
    this.bulk = h("div", { class: "row", role: "group", "aria-label": "Judge the chosen announcements" });
    this.score = h("div", {});
    this.proposals = h("div", {});
    this.more = h("div", { class: "row" });
    this.labelsId = freshId("labels");
    this.labels = h("datalist", { id: this.labelsId });
    this.element = h("div", {}, h("h1", {}, "Was the rig right?"),
      h("div", { class: "columns" },
        h("section", { class: "card" }, h("h2", {}, "Score by day"), this.score),
        h("section", { class: "card" }, h("h2", {}, "Proposed to the library"), this.proposals)),
      h("section", { class: "card" }, h("h2", {}, "Announcements"), this.labels,
        h("label", { class: "option" }, this.onlyOpen, "Only those without a verdict"), h("label", { class: "option" }, this.everyList, "Every short list"), this.bulk, this.list, this.more));
    this.onChanged = (event) => { if (event.detail.command === "feedback") this.load(); };
    this.onEvent = (event) => {
      const { type } = event.detail.payload;
      if (["recognised", "unrecognised", "listed", "ended"].includes(type)) this.load();
      if (type !== "ended") return;
      clearTimeout(this.clipTimer);
      this.clipTimer = setTimeout(() => this.load(), CLIP_WRITTEN_MS);
    };
  }

  open() {
    this.live.addEventListener("changed", this.onChanged);
    this.live.addEventListener("event", this.onEvent);
    if (this.rig.rig) this.load();
  }

  close() {
    this.live.removeEventListener("changed", this.onChanged);
    this.live.removeEventListener("event", this.onEvent);
    clearTimeout(this.clipTimer);
  }

  async load(last = Math.max(PAGE, this.announcements.length)) {
    try {
      const [data, library] = await Promise.all([
        this.requests.send("feedback", { action: "list", last: Math.min(last, 200) }),
        this.library ? this.library : this.requests.send("enroll", { action: "list" }).catch(() => ({ smells: [] })),
      ]);
      this.library = library;
      show(this.labels, this.rig.labelsWith(library.smells).map((name) => h("option", { value: name })));
      this.announcements = data.announcements;
      this.drawScore(data.score);
      this.drawProposals(data.proposals);
      this.draw();
    } catch (error) {
      show(this.list, h("p", { class: "muted" }, error.message));
    }
  }

  draw() {
    const shown = this.wanted();
    show(this.list, shown.length ? h("ul", { class: "plain" }, shown.map((item) => this.row(item))) : h("p", { class: "muted" }, this.announcements.length ? "Every announcement has a verdict." : "Nothing was announced yet."));
    show(this.more, this.announcements.length >= PAGE && this.announcements.length < 200 ? button("Show more", () => this.load(this.announcements.length + PAGE)) : null);
    this.drawBulk();
  }

  // Of the short lists of one odour only the last is shown, and only if no name followed.
  wanted() {
    const odour = (item) => `${item.boot_id} ${item.onset_ms}`;
    const answered = new Set(this.announcements.filter((item) => item.type !== "listed").map(odour));
    return distinctAnnouncements(this.announcements).filter((item) => {
      if (this.onlyOpen.checked && item.feedback) return false;
      if (item.type !== "listed" || item.feedback || this.everyList.checked) return true;
      const seen = answered.has(odour(item));
      answered.add(odour(item));
      return !seen;
    });
  }

  drawBulk() {
    const count = this.chosen.size;
    if (!count) {
      show(this.bulk);
      return;
    }
    show(this.bulk, h("b", {}, `${plural(count, "announcement")} chosen`),
      button("All right", () => this.judgeChosen("right")), button("All wrong", () => this.judgeChosen("wrong")),
      button("They were ...", () => this.askName(() => [...this.chosen])),
      button("Choose none", () => { this.chosen.clear(); this.draw(); }));
  }

  row(item) {
    const key = `${item.boot_id} ${item.seq}`;
    const name = item.type === "recognised" ? label(item.label ?? item.detail) : item.type === "listed" ? label(item.detail) : "unknown smell";
    const what = `${name}, ${dayAndClock(item.ts)}`;
    const place = h("span", {});
    this.drawCurve(place, item, key);
    const { feedback } = item;
    return h("li", { class: "announcement" },
      h("input", { type: "checkbox", "aria-label": `Choose ${what}`, checked: this.chosen.has(key), onchange: (event) => {
        if (event.target.checked) this.chosen.add(key);
        else this.chosen.delete(key);
        this.drawBulk();
      } }),
      h("div", { class: "row middle" }, place, h("div", {},
        h("b", {}, name), item.probability ? ` ${percent(item.probability)}` : "",
        h("div", { class: "small muted" }, `${dayAndClock(item.ts)}${item.ended_ms ? `, odour of ${duration((item.ended_ms - item.onset_ms) / 1000)}` : ""}${item.model && item.model !== "taught" ? `, ${maker(item.model)}` : ""}`),
        feedback ? h("div", {}, badge(feedback.verdict === "right" ? "right" : "wrong", feedback.verdict === "right" ? "good" : "bad"), feedback.label ? ` it was ${label(feedback.label)}` : "") : null)),
      h("div", { class: "actions" },
        item.type !== "listed" ? button("Right", () => this.judge([key], { verdict: "right" }), { "aria-label": `${what}: right` }) : null,
        button("Wrong", () => this.judge([key], { verdict: "wrong" }), { "aria-label": `${what}: wrong` }),
        button("It was ...", () => this.askName(() => [key], item), { "aria-label": `${what}: say what it was` })));
  }

  // The curve comes from the clip of the odour or, without one, from the continuous recording. The
  // clip is tried first: it is short, and holds what lies on both sides of a segment's end.
  async drawCurve(place, item, key) {
    const sources = [item.clip, item.segment].filter(Boolean);
    if (!sources.length || !this.rig.hasRecordings) {
      show(place, h("span", { class: "small muted" }, sources.length ? "recorded elsewhere" : "not recorded"));
      return;
    }
    if (!this.curves.has(key)) {
      const to = Math.min(item.ended_ms ?? item.t_ms + 60_000, item.onset_ms + 600_000);
      const query = new URLSearchParams({ start_ms: Math.max(0, item.onset_ms - 60_000), end_ms: to });
      const read = (name) => call(`api/rigs/${this.rig.rig}/recordings/${encodeURIComponent(name)}/curve?${query}`);
      const curve = sources.slice(1).reduce((before, name) => before.catch(() => read(name)), read(sources[0]));
      this.curves.set(key, curve.then((found) => above(found, item.onset_ms), () => null));
      if (!item.ended_ms) this.curves.get(key).then(() => this.curves.delete(key));
    }
    show(place, spark(await this.curves.get(key)));
  }

  judgeChosen(verdict) {
    this.judge([...this.chosen], { verdict });
  }

  askName(keys, item) {
    const input = h("input", { type: "text", list: this.labelsId, required: true, maxlength: 64, autocomplete: "off" });
    const heading = freshId("name");
    const dialog = h("dialog", { "aria-labelledby": heading }, h("form", { method: "dialog" },
      h("h2", { id: heading }, "What was it?"), field("Name of the smell", input),
      h("div", { class: "row" }, h("button", { class: "main", value: "yes" }, "Save"), button("Cancel", () => dialog.close("")))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      const name = input.value.trim();
      if (dialog.returnValue !== "yes" || !name) return;
      this.judge(keys(), { verdict: item?.label === name ? "right" : "wrong", label: name });
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  // Announcements of one boot are judged together.
  async judge(keys, verdict) {
    const boots = new Map();
    for (const key of keys) {
      const [boot, seq] = key.split(" ");
      boots.set(boot, [...(boots.get(boot) ?? []), Number(seq)]);
    }
    try {
      for (const [boot, seqs] of boots) {
        for (let first = 0; first < seqs.length; first += 50) {
          const data = await this.requests.send("feedback", { boot_id: boot, seq: seqs.slice(first, first + 50), ...verdict });
          if (data.why?.length) notice(data.why[0]);
        }
      }
      this.chosen.clear();
    } catch (error) {
      notice(error.message);
    }
    await this.load();
  }

  drawScore(score) {
    const total = score.right + score.wrong;
    show(this.score,
      h("p", {}, total ? h("b", {}, `${score.right} of ${total} right (${percent(score.share_right)})`) : "No verdict yet. Say whether announcements were right."),
      score.days.length ? scroll("Score by day", h("table", {},
        h("thead", {}, h("tr", {}, ["Day", "Announced", "Right", "Wrong", ""].map((text) => h("th", { scope: "col", class: text === "Day" ? null : text ? "number" : "wide" }, text)))),
        h("tbody", {}, score.days.slice(-14).reverse().map((day) => h("tr", {}, h("th", { scope: "row" }, day.day),
          h("td", { class: "number" }, day.announced), h("td", { class: "number" }, day.right), h("td", { class: "number" }, day.wrong),
          h("td", { class: "wide" }, dayBar(day))))))) : null);
  }

  drawProposals(proposals) {
    show(this.proposals, h("p", { class: "small muted" }, "From what you said. Nothing is learnt from it until you accept."),
      proposals.length ? h("ul", { class: "plain" }, proposals.map((item) => h("li", { class: "row middle" },
        item.kind === "exposure" ? `${label(item.label)}, ${duration(item.seconds)} of ${item.session}` : `not ${label(item.label)}, ${duration(item.seconds)} of ${item.session}`,
        item.kind === "exposure" ? button("Teach it", () => this.accept(item), { "aria-label": `Teach ${label(item.label)} of ${item.session}` })
          : button("None of the taught smells", () => this.accept(item), { title: "The rig gives no taught name to what resembles it. If it was one of your smells, say below which.", "aria-label": `Keep what is not ${label(item.label)} of ${item.session} as none of the taught smells` }),
        button("Dismiss", () => this.dismiss(item), { "aria-label": `Dismiss ${label(item.label)} of ${item.session}` })))) : h("p", {}, "Nothing is proposed."));
  }

  async accept(item) {
    const known = this.library?.smells.find((smell) => smell.label === item.label);
    try {
      await this.requests.send("feedback", { action: "accept", id: item.id, promote: Boolean(known && !known.shadow) });
      if (item.kind === "negative") notice("Kept. What is nearer to it than to the taught smells gets none of their names. It is in the library on the page Teach.");
      else notice(`${label(item.label)} was taught. ${known && !known.shadow ? "" : "It is in shadow until you announce it on the page Teach."}`);
    } catch (error) {
      notice(error.message);
    }
    this.library = null;
    this.load();
  }

  async dismiss(item) {
    await this.requests.send("feedback", { action: "dismiss", id: item.id });
    this.load();
  }
}

// A part of a recording as `spark` draws it: above the readings before the onset.
function above(curve, onset) {
  const rows = curve.t_ms.map((t, place) => [t, ...CHANNELS.map((channel) => curve.channels[channel.name]?.[place] ?? null)]);
  const before = rows.filter((row) => row[0] < onset - 20_000);
  const clean = cleanAir(before.length ? before : rows.slice(0, 3));
  const drawn = { t_s: rows.map((row) => (row[0] - onset) / 1000) };
  CHANNELS.forEach(({ name, part }, place) => {
    if (part === "environment" || clean[place] === null) return;
    drawn[name] = rows.map((row) => {
      const value = signal(part, row[place + 1]);
      return value === null ? null : value - clean[place];
    });
  });
  return drawn;
}

function dayBar({ announced, right, wrong }) {
  const most = Math.max(1, announced, right + wrong);
  const part = (count) => `${(100 * count) / most}%`;
  return svg("svg", { width: 110, height: 12, role: "img", "aria-label": `${right} right, ${wrong} wrong of ${announced}` },
    svg("rect", { class: "track", width: "100%", height: 12, rx: 3 }),
    svg("rect", { class: "bar", width: part(right), height: 12 }),
    svg("rect", { fill: "#c62f28", x: part(right), width: part(wrong), height: 12 }));
}
