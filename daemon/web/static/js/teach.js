// Teaches what is there now, and shows the library of taught smells.

import { badge, button, confirmed, field, freshId, h, notice, scroll, show, svg } from "./dom.js";
import { call } from "./api.js";
import { dayAndClock, duration, label, percent, plural, shares } from "./format.js";
import { CHANNELS, movingChannels } from "./signals.js";

const LAST = [60, 120, 180, 300];
const LABEL_CHARACTERS = 64;

// Columns of the library: numbers, and those that a phone leaves out.
const COLUMNS = { Exposures: "number wide", Sessions: "number wide", Learnt: "wide", "Last taught": "wide" };

export class TeachView {
  title = "Teach";

  constructor({ rig, live, requests }) {
    Object.assign(this, { rig, live, requests });
    this.library = null;
    this.opened = null;
    this.form = this.makeForm();
    this.settled = h("p", { class: "small", role: "status" });
    this.progress = h("div", { role: "status" });
    this.answer = h("div", { role: "status" });
    this.unnamed = h("section", { class: "card", hidden: true });
    this.libraryPlace = h("div", {}, h("p", { class: "muted" }, "Loading the library ..."));
    this.element = h("div", {},
      h("h1", {}, "Teach the rig a smell"),
      h("div", { class: "columns wide-left" },
        h("section", { class: "card" }, h("h2", {}, "Teach what is there now"), this.form, this.settled, this.progress, this.answer),
        h("section", { class: "card" }, h("h2", {}, "How to teach well"),
          h("ol", { class: "steps" },
            h("li", {}, "Let the rig stand in clean air for a minute, until the page says ", h("b", {}, "Clean air"), "."),
            h("li", {}, "Bring the smell to the sensors and leave it there for two to five minutes."),
            h("li", {}, "Name it and teach the last minutes. It is kept in shadow until you let the rig announce it."),
            h("li", {}, "Teach it again on another day. Two or three days make a smell reliable.")))),
      this.unnamed,
      h("section", { class: "card" }, h("h2", {}, "The library of this rig"), this.libraryPlace));
    this.onChange = () => this.showSettled();
    this.onChanged = (event) => { if (event.detail.command === "enroll" || event.detail.command === "feedback") this.load(); };
    this.onAnswer = (event) => this.showOthers(event.detail);
    this.onEvent = (event) => { if (["unrecognised", "ended"].includes(event.detail.payload.type)) this.loadUnnamed(); };
  }

  open() {
    this.rig.addEventListener("change", this.onChange);
    this.live.addEventListener("changed", this.onChanged);
    this.live.addEventListener("answer", this.onAnswer);
    this.live.addEventListener("event", this.onEvent);
    for (const answer of this.rig.teaching) this.showOthers({ ...answer, status: "working", data: answer.data ?? {} });
    this.showSettled();
    if (this.rig.rig) {
      this.load();
      this.loadUnnamed();
    }
  }

  close() {
    this.rig.removeEventListener("change", this.onChange);
    this.live.removeEventListener("changed", this.onChanged);
    this.live.removeEventListener("answer", this.onAnswer);
    this.live.removeEventListener("event", this.onEvent);
  }

  makeForm() {
    const list = freshId("labels");
    this.labels = h("datalist", { id: list });
    this.name = h("input", { type: "text", list, required: true, maxlength: LABEL_CHARACTERS, autocomplete: "off", placeholder: "coffee" });
    this.when = h("select", {},
      LAST.map((seconds) => h("option", { value: `last ${seconds}` }, `the last ${duration(seconds)}`)),
      LAST.map((seconds) => h("option", { value: `next ${seconds}` }, `the next ${duration(seconds)}`)));
    this.when.value = "last 120";
    this.promote = h("input", { type: "checkbox" });
    this.submit = h("button", { class: "main", type: "submit" }, "Teach");
    return h("form", { onsubmit: (event) => { event.preventDefault(); this.teach(); } },
      h("div", { class: "row" }, field("Name of the smell", this.name), this.labels, field("Learn from", this.when), this.submit),
      h("label", { class: "option" }, this.promote, "Let the rig announce it at once"));
  }

  async teach() {
    const name = this.name.value.trim();
    if (!name) return;
    const [which, seconds] = this.when.value.split(" ");
    const payload = { action: "teach", label: name, promote: this.promote.checked, [which === "last" ? "last_s" : "seconds"]: Number(seconds) };
    this.submit.disabled = true;
    this.own = true;
    show(this.answer);
    this.showProgress(name, { share: 0 });
    try {
      const data = await this.requests.send("enroll", payload, (progress) => this.showProgress(name, progress));
      this.showAnswer(data);
    } catch (error) {
      show(this.answer, h("p", { class: "answer bad", role: "alert" }, error.message));
    } finally {
      show(this.progress);
      this.submit.disabled = false;
      this.own = false;
    }
  }

  showProgress(name, { doing, share }) {
    const text = doing === "smelling" ? `Smelling ${label(name)}: leave it at the sensors.` : doing === "rehearsing" ? "Trying out what was learnt ..." : doing ? `${doing} ...` : "Teaching ...";
    show(this.progress, h("div", { class: "answer" }, h("p", {}, text), h("progress", { value: share ?? 0, max: 1, "aria-label": text })));
  }

  // Progress of another page that teaches this rig.
  showOthers(answer) {
    if (this.own || answer.command !== "enroll" || !answer.label) return;
    if (answer.status === "working" || answer.status === undefined) {
      show(this.progress, h("div", { class: "answer warn" }, h("p", {}, `Another page is teaching ${label(answer.label)} now.`), h("progress", { value: answer.data?.share ?? 0, max: 1, "aria-label": "Progress of the other page" })));
    } else {
      show(this.progress);
      notice(answer.status === "ok" ? `Another page has taught ${label(answer.label)}.` : `Another page could not teach ${label(answer.label)}.`);
    }
  }

  showAnswer(data) {
    const { rehearsal, advice } = data;
    const by = { session: "the other sessions", exposure: "the other exposures" }[rehearsal.held_out_by];
    const held = { session: "a session", exposure: "an exposure" }[rehearsal.held_out_by];
    show(this.answer, h("div", { class: "answer" },
      h("p", {}, h("b", {}, label(data.label)), `: learnt ${duration(data.seconds)}, ${duration(data.response_s)} of them above clean air. ${plural(data.exposures, "exposure")} from ${plural(data.sessions, "session")} so far.`),
      data.clean_air ? null : h("p", {}, "Clean air before it is not known, so it will be recognised less well. Let the rig stand in clean air for a minute first."),
      rehearsal.before.length ? h("p", {}, `Without it, this was called: ${shares(rehearsal.before)}.`) : null,
      h("p", {}, held ? `Taught from ${by}, ${percent(rehearsal.held_out)} of ${held} is recognised.` : oneExposure(rehearsal.rigs_from_one)),
      rehearsal.confused_with.length ? h("p", {}, `The rest is taken for: ${shares(rehearsal.confused_with)}.`) : null,
      rehearsal.taken_from.some((item) => item.share > 0.005) ? h("p", {}, `It takes away from: ${shares(rehearsal.taken_from)}. These will be confused.`) : null,
      data.channels_missing.length ? h("p", {}, `Learnt without ${data.channels_missing.map(label).join(", ")}.`) : null,
      advice ? h("p", {}, h("b", {}, `One more day of ${label(advice.label)} would help most`), ` (taught on ${plural(advice.sessions, "day")} so far).`) : h("p", {}, "Every smell was taught on enough days."),
      h("div", { class: "row" },
        data.shadow ? button(`Let the rig announce ${label(data.label)}`, () => this.change({ action: "promote", label: data.label }, () => show(this.answer, h("p", { class: "answer" }, `The rig announces ${label(data.label)} from now on.`))), { class: "main" }) : badge("announced from now on", "good"),
        button("Undo", () => this.change({ action: "rollback" }, () => show(this.answer, h("p", { class: "answer" }, "Undone.")))))));
  }

  // Odours that ended without a name can be taught afterwards, while their readings are kept.
  async loadUnnamed() {
    if (this.unnamed.contains(document.activeElement)) return;
    let found = [];
    try {
      const { announcements } = await this.requests.send("feedback", { action: "list", last: 40 });
      // The newest announcement of an odour is its answer.
      const answers = new Map();
      for (const item of announcements) {
        const odour = `${item.boot_id} ${item.onset_ms}`;
        if (item.type !== "listed" && !answers.has(odour)) answers.set(odour, item);
      }
      found = [...answers.values()].filter((item) => item.type === "unrecognised" && !item.feedback && item.ended_ms).slice(0, 3);
    } catch { /* a rig of an earlier version */ }
    this.unnamed.hidden = !found.length;
    show(this.unnamed, h("h2", {}, "Smells without a name"),
      h("p", { class: "small muted" }, "The rig did not know these. If you do, teach them now: the readings are still there."),
      h("ul", { class: "plain" }, found.map((item) => this.unnamedRow(item))));
  }

  unnamedRow(item) {
    const when = dayAndClock(item.ts);
    const input = h("input", { type: "text", list: this.labels.id, required: true, maxlength: LABEL_CHARACTERS, autocomplete: "off", "aria-label": `Name of the smell of ${when}` });
    return h("li", {}, h("form", { class: "row middle", onsubmit: (event) => { event.preventDefault(); this.teachPast(item, input.value.trim()); } },
      h("span", {}, `${when}, for ${duration((item.ended_ms - item.onset_ms) / 1000)}`), input,
      h("button", { type: "submit", "aria-label": `Teach the smell of ${when}` }, "Teach it")));
  }

  async teachPast(item, name) {
    if (!name) return;
    show(this.answer);
    this.own = true;
    this.showProgress(name, {});
    try {
      const given = await this.requests.send("feedback", { boot_id: item.boot_id, seq: [item.seq], verdict: "right", label: name });
      const [proposal] = given.proposals;
      if (!proposal) throw new Error(given.why[0] ?? "The readings of this smell are not kept any more.");
      const known = this.library?.smells.find((smell) => smell.label === name);
      this.showAnswer(await this.requests.send("feedback", { action: "accept", id: proposal.id, promote: this.promote.checked || Boolean(known && !known.shadow) }, (progress) => this.showProgress(name, progress)));
    } catch (error) {
      show(this.answer, h("p", { class: "answer bad", role: "alert" }, error.message));
    } finally {
      show(this.progress);
      this.own = false;
      document.activeElement?.blur();
      this.loadUnnamed();
    }
  }

  async change(payload, done = () => {}) {
    try {
      const data = await this.requests.send("enroll", payload);
      if (data.smells) this.library = data;
      this.drawLibrary();
      done(data);
    } catch (error) {
      notice(error.message);
    }
  }

  async load() {
    try {
      this.library = await this.requests.send("enroll", { action: "list" });
      this.drawLibrary();
    } catch (error) {
      show(this.libraryPlace, h("p", { class: "muted" }, error.message));
    }
  }

  showSettled() {
    const state = this.rig.ordered[0]?.payload.state;
    const moving = movingChannels(this.rig.readings);
    const air = state === "ambient" ? "The air is clean now: bring the smell to the sensors first. " : "";
    this.settled.textContent = air + (moving === null ? "" : moving.length ? `Still changing: ${moving.map(label).join(", ")}.` : "All channels are steady.");
  }

  drawLibrary() {
    const { smells, hidden, renamed } = this.library;
    show(this.labels, this.rig.labelsWith(smells).map((name) => h("option", { value: name })));
    const table = scroll("Taught smells", h("table", {},
      h("caption", {}, `Version ${this.library.version}: ${label(this.library.change)}`),
      h("thead", {}, h("tr", {}, ["Smell", "State", "Exposures", "Sessions", "Learnt", "Last taught", "Actions"].map((text) => h("th", { scope: "col", class: COLUMNS[text] }, text)))),
      h("tbody", {}, smells.map((smell) => this.smellRow(smell)))));
    show(this.libraryPlace,
      smells.length ? table : h("p", { class: "muted" }, "Nothing has been taught yet."),
      this.detailsPlace = h("div", {}),
      this.shippedLabels(hidden, renamed),
      h("div", { class: "row" },
        button("Undo the last change", () => this.change({ action: "rollback" }, (data) => notice(`Undone. Version ${data.version}.`)), { disabled: this.library.version === 0 }),
        this.rig.hasRecordings ? [button("Export the library", () => this.exportLibrary(), { disabled: !smells.length }), this.importButton()]
          : h("span", { class: "small muted" }, "The library is exported and imported on the page of the rig's own computer, or one that was started with the rig's configuration.")));
    if (this.opened && smells.some((smell) => smell.label === this.opened)) this.openSmell(this.opened);
  }

  smellRow(smell) {
    const name = label(smell.label);
    return h("tr", {},
      h("th", { scope: "row" }, button(name, () => this.openSmell(smell.label), { class: "link", "aria-label": `Show the exposures of ${name}` })),
      h("td", {}, smell.shadow ? badge("in shadow", "warn") : smell.negative ? badge("never named") : badge("announced", "good")),
      h("td", { class: "number wide" }, smell.exposures), h("td", { class: "number wide" }, smell.sessions),
      h("td", { class: "wide" }, duration(smell.seconds)), h("td", { class: "wide" }, dayAndClock(smell.taught)),
      h("td", {}, h("div", { class: "row" },
        smell.shadow ? button(smell.negative ? "Use" : "Announce", () => this.change({ action: "promote", label: smell.label }), { "aria-label": `${smell.negative ? "Use" : "Announce"} ${name}` }) : null,
        smell.negative ? null : button("Rename", () => this.rename(smell.label), { "aria-label": `Rename ${name}` }),
        button("Forget", () => this.forget(smell.label), { class: "danger", "aria-label": `Forget ${name}` }))));
  }

  shippedLabels(hidden, renamed) {
    const names = this.rig.singleLabels.filter((name) => !hidden.includes(name));
    if (!names.length && !hidden.length) return null;
    const choice = h("select", {}, names.map((name) => h("option", { value: name }, label(name))));
    return h("details", {}, h("summary", {}, `Labels of the models (${names.length})`),
      h("p", { class: "small muted" }, "A hidden label is never announced. A renamed one appears under its new name."),
      h("div", { class: "row" }, field("Label", choice),
        button("Hide it", () => this.change({ action: "hide", label: choice.value })),
        button("Rename it", () => this.rename(choice.value))),
      hidden.length ? h("ul", {}, hidden.map((name) => h("li", {}, `${label(name)} is hidden. `, button("Show again", () => this.change({ action: "unhide", label: name }), { class: "link", "aria-label": `Show ${label(name)} again` })))) : null,
      Object.keys(renamed).length ? h("ul", {}, Object.entries(renamed).map(([from, to]) => h("li", {}, `${label(from)} is called ${label(to)}`))) : null);
  }

  rename(name) {
    const input = h("input", { type: "text", required: true, maxlength: LABEL_CHARACTERS, value: name });
    const heading = freshId("rename");
    const dialog = h("dialog", { "aria-labelledby": heading }, h("form", { method: "dialog" },
      h("h2", { id: heading }, `Rename ${label(name)}`), field("New name", input),
      h("div", { class: "row" }, h("button", { class: "main", value: "yes" }, "Rename"), button("Cancel", () => dialog.close("")))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      const wanted = input.value.trim();
      if (dialog.returnValue === "yes" && wanted && wanted !== name) this.change({ action: "rename", label: name, name: wanted });
    });
    document.body.append(dialog);
    dialog.showModal();
    input.select();
  }

  async forget(name) {
    if (await confirmed(`Forget ${label(name)}?`, "All its exposures are removed from the library. The last change can be undone.", "Forget")) this.change({ action: "forget", label: name });
  }

  async openSmell(name) {
    this.opened = name;
    const data = await this.requests.send("enroll", { action: "exposures", label: name, points: 60 });
    show(this.detailsPlace, h("section", { "aria-label": `Exposures of ${label(name)}` },
      h("h3", {}, `Exposures of ${label(name)}`),
      data.sessions.map(({ session, exposures }) => h("div", {}, h("p", { class: "small muted" }, `Session ${session}`),
        h("ul", { class: "plain" }, exposures.map((exposure) => h("li", { class: "row middle" },
          spark(exposure.curve), h("span", { class: "small" }, `${dayAndClock(exposure.taught)}, ${duration(exposure.seconds)}, from ${exposure.source}`),
          button("Forget this exposure", () => this.change({ action: "forget", label: name, exposure: exposure.id }), { class: "danger", "aria-label": `Forget the exposure of ${dayAndClock(exposure.taught)}` }))))))));
  }

  async exportLibrary() {
    const data = await this.requests.send("enroll", { action: "export" });
    const link = h("a", { href: `api/rigs/${this.rig.rig}/library`, download: "smells.zip" });
    link.click();
    notice(`Exported ${plural(data.exported, "smell")}.`);
  }

  // Asks first where the file is of another board, or holds smells of a name that is taught here.
  async importLibrary(path) {
    const plan = await this.requests.send("enroll", { action: "import", path, check: true });
    const request = { action: "import", path };
    if (plan.missing.length) return notice(plan.problem);
    if (!plan.same_board) {
      const text = `Its smells may not fit: ${plan.why}. What another board learnt is mostly wrong here; it stays in shadow until it is announced.`;
      if (!await confirmed("Import smells of another board?", text, "Import")) return;
      request.other_board = true;
    }
    const both = plan.planned.filter((smell) => smell.taught_here && smell.exposures).map((smell) => smell.becomes);
    if (both.length && plan.same_board) {
      if (!await confirmed("Add to the smells of the same name?", `${both.map(label).join(", ")}: taught here already. The exposures of the file are added.`, "Add them")) return;
      request.merge = true;
    } else if (both.length) {
      request.rename = Object.fromEntries(both.map((name) => [name, `${name}_${plan.origin.rig || "other"}`]));
    }
    await this.change(request, () => notice("Imported. New smells are in shadow."));
  }

  importButton() {
    const input = h("input", { type: "file", accept: ".zip", class: "visually-hidden", "aria-label": "File of another rig's smells", tabindex: "-1" });
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.value = "";
      if (!file) return;
      try {
        const { path } = await call(`api/rigs/${this.rig.rig}/library`, { method: "PUT", body: file });
        await this.importLibrary(path);
      } catch (error) {
        notice(error.message);
      }
    });
    return [button("Import a library", () => input.click()), input];
  }
}

// What one exposure can tell of another day; `shares` are those of real rigs, which an older service does not send.
function oneExposure(shares) {
  const rigs = shares?.length ? `: on ${plural(shares.length, "real rig")} that ${shares.length === 1 ? "was" : "were"} taught each smell once, ${shares.map(percent).join(", ")} of later exposures were named rightly` : "";
  return `One exposure cannot tell how well it will be known on another day${rigs}.`;
}

const WIDTH = 150;
const HEIGHT = 36;

// A small picture of a curve `{t_s, CHANNEL: [...]}`.
export function spark(curve) {
  if (!curve || !curve.t_s?.length) return h("span", { class: "muted small" }, "no curve");
  const named = Object.entries(curve).filter(([name]) => name !== "t_s");
  const values = named.flatMap(([, list]) => list).filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...values), Math.max(0.1, ...values)];
  const [from, to] = [curve.t_s[0], curve.t_s.at(-1)];
  const x = (t) => (WIDTH * (t - from)) / Math.max(1, to - from);
  const y = (value) => HEIGHT - 1 - ((HEIGHT - 2) * (value - low)) / (high - low);
  const picture = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Curve of ${Math.round(to - from)} s, up to ${high.toFixed(1)} above clean air` },
    from < 0 ? svg("line", { x1: x(0), x2: x(0), y1: 0, y2: HEIGHT, stroke: "currentColor", "stroke-opacity": 0.25 }) : null);
  for (const [name, list] of named) {
    let path = "";
    list.forEach((value, place) => {
      if (value !== null) path += `${path && list[place - 1] !== null ? "L" : "M"}${x(curve.t_s[place]).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    picture.append(svg("path", { d: path, stroke: CHANNELS.find((channel) => channel.name === name)?.colour ?? "gray" }));
  }
  return picture;
}
