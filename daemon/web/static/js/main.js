// The frame of the page: log in, connect, choose rig and view.

import { ApiError, Requests, call } from "./api.js";
import { button, field, h, notice, show } from "./dom.js";
import { Live } from "./live.js";
import { RigState } from "./rig.js";
import { NowView } from "./now.js";
import { TeachView } from "./teach.js";
import { ReviewView } from "./review.js";
import { RecordingsView } from "./recordings.js";
import { RigView } from "./rig_view.js";

const VIEWS = { now: NowView, teach: TeachView, review: ReviewView, recordings: RecordingsView, rig: RigView };

const place = document.getElementById("view");
const banner = document.getElementById("banner");
const choice = document.getElementById("rig");
const live = new Live();
const rig = new RigState(live);
const requests = new Requests(live);
const context = { live, rig, requests, rigs: [] };
// For tests: what the page knows of the rig.
window.scentd = { rig };
let view = null;
let broker = { connected: true };
let connected = true;

function route() {
  const name = location.hash.replace(/^#\//, "").split("/")[0];
  return name in VIEWS ? name : "now";
}

function openView() {
  const name = route();
  view?.close();
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view = new VIEWS[name](context);
  show(place, view.element);
  document.title = `${view.title} - ${rig.rig ?? "scentd"}`;
  view.open();
  if (rig.rig && !performance.getEntriesByName("usable").length) performance.mark("usable");
}

function showTroubles() {
  let text = "";
  if (!connected) text = "The server of this page does not answer; connecting again ...";
  else if (!broker.connected) text = `No connection to the broker. ${broker.why ?? ""}`;
  else if (rig.rig && rig.status !== "online") text = `The service of rig ${rig.rig} is not running. What is shown is what it sent last.`;
  else if (rig.rig && rig.sensorStatus === "offline") text = rig.health?.board?.why ?? "The board sends no readings.";
  banner.textContent = text;
  banner.hidden = !text;
  const badge = document.getElementById("rig-status");
  const ok = connected && broker.connected && rig.status === "online" && rig.sensorStatus !== "offline";
  badge.textContent = rig.rig ? (ok ? "online" : "offline") : "";
  badge.className = `badge ${ok ? "good" : "bad"}`;
  badge.hidden = !rig.rig;
}

function showRigs(rigs) {
  context.rigs = rigs;
  const listed = [...choice.options].map((option) => option.value);
  // A list that is open stays open while rigs come and go.
  if (listed.join() !== rigs.map((item) => item.rig).join()) show(choice, rigs.map((item) => h("option", { value: item.rig }, item.rig)));
  const wanted = localStorage.getItem("rig");
  const known = rigs.map((item) => item.rig);
  const first = (rigs.find((item) => item.status === "online") ?? rigs[0])?.rig;
  const chosen = known.includes(live.rig) ? live.rig : known.includes(wanted) ? wanted : first;
  if (chosen) choice.value = chosen;
  if (chosen && chosen !== live.rig) live.watch(chosen);
  showTroubles();
}

function start() {
  live.addEventListener("connection", (event) => { connected = event.detail.open; showTroubles(); });
  live.addEventListener("broker", (event) => { broker = event.detail; showTroubles(); });
  live.addEventListener("rigs", (event) => showRigs(event.detail.rigs));
  rig.addEventListener("change", (event) => {
    if (event.detail === "all") openView();
    if (event.detail !== "readings") showTroubles();
  });
  choice.addEventListener("change", () => {
    localStorage.setItem("rig", choice.value);
    live.watch(choice.value);
  });
  addEventListener("hashchange", () => { openView(); place.focus(); });
  addEventListener("unhandledrejection", (event) => {
    if (event.reason instanceof ApiError) {
      notice(event.reason.message);
      event.preventDefault();
      if (event.reason.status === 401) location.reload();
    }
  });
  live.connect();
  openView();
}

function askForToken(problem = "") {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true, size: 34 });
  const form = h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    await logIn(input.value);
  } },
  h("h1", {}, "Log in"),
  h("p", {}, "The token was printed when the page was first started, and lies in the file web-token in the rig's state folder."),
  h("div", { class: "row" }, field("Token", input), h("button", { class: "main", type: "submit" }, "Log in")),
  problem ? h("p", { class: "answer bad", role: "alert" }, problem) : null);
  show(place, form);
  input.focus();
}

async function logIn(token) {
  try {
    await call("api/login", { method: "POST", body: { token } });
  } catch (error) {
    askForToken(error.message);
    return;
  }
  start();
}

const shown = new URLSearchParams(location.hash.slice(1)).get("token");
if (shown) {
  // The part after # is never sent to a server; it is removed from the history too.
  history.replaceState(null, "", location.pathname);
  logIn(shown);
} else {
  call("api/session").then(
    (session) => { if (session.logged_in) start(); else askForToken(); },
    (error) => show(place, h("p", { class: "answer bad" }, error.message), button("Try again", () => location.reload())),
  );
}
