// Curves of channels with uPlot, a legend that the keyboard can use, and a text for screen readers.

import { h, show } from "./dom.js";
import { CHANNELS } from "./signals.js";
import { label } from "./format.js";

const UPLOT = window.uPlot;

const LEAST_DRAG = 4; // pixels

function colours() {
  const style = getComputedStyle(document.documentElement);
  return { text: style.getPropertyValue("--muted").trim(), line: style.getPropertyValue("--line").trim() };
}

// An axis of seconds before now, in minutes.
const MINUTES = {
  incrs: [60, 120, 300],
  values: (_plot, ticks) => ticks.map((tick) => (tick === 0 ? "now" : `${Math.round(tick / 60)}`)),
};

export class CurveChart {
  // channels: places in CHANNELS; onSelect(from, to) in the units of x, if stretches can be chosen by
  // dragging, and onPick(at) for a click or a tap, because a finger cannot drag there.
  constructor({ channels, height = 260, title, unit, xLabel = "seconds", onSelect = null, onPick = null, range = null, key }) {
    this.channels = channels;
    this.title = title;
    this.height = height;
    this.options = { unit, xLabel, onSelect, onPick, range };
    this.hidden = new Set(JSON.parse(localStorage.getItem(`hidden ${key}`) ?? "[]"));
    this.key = key;
    this.plot = null;
    this.data = [[], ...channels.map(() => [])];
    this.place = h("div", { class: "chart", role: "img", "aria-label": title });
    this.legend = h("ul", { class: "legend", "aria-label": `Channels of: ${title}` });
    this.element = h("div", {}, this.place, this.legend);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.place);
    this.theme = matchMedia("(prefers-color-scheme: dark)");
    this.rebuild = () => { this.plot?.destroy(); this.plot = null; this.draw(this.data); };
    this.theme.addEventListener("change", this.rebuild);
  }

  destroy() {
    this.observer.disconnect();
    this.theme.removeEventListener("change", this.rebuild);
    this.plot?.destroy();
  }

  // data: [x, one list for each channel of this chart].
  draw(data) {
    this.data = data;
    this.describe();
    if (!this.plot) {
      if (!this.place.clientWidth || !data[0].length) return;
      this.build();
      return;
    }
    this.plot.setData(data);
  }

  build() {
    const { text, line } = colours();
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const { onSelect, onPick, range } = this.options;
    this.plot = new UPLOT({
      width: this.place.clientWidth,
      height: this.height,
      scales: { x: { time: false, ...(range ? { range } : {}) } },
      cursor: { drag: { x: Boolean(onSelect), y: false, setScale: false }, points: { show: true } },
      legend: { show: false },
      axes: [
        { ...axis, label: this.options.xLabel, labelSize: 18, size: 34, ...(range ? MINUTES : {}) },
        { ...axis, label: this.options.unit, labelSize: 18, size: 46 },
      ],
      series: [{}, ...this.channels.map((place) => ({
        label: CHANNELS[place].name,
        stroke: CHANNELS[place].colour,
        width: 1.6,
        spanGaps: false,
        show: !this.hidden.has(CHANNELS[place].name),
        points: { show: false },
      }))],
      hooks: onSelect ? { setSelect: [(plot) => {
        if (plot.select.width < LEAST_DRAG) return;
        onSelect(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
      }] } : {},
    }, this.data, this.place);
    if (onPick) {
      let downAt = 0;
      this.plot.over.addEventListener("mousedown", (event) => { downAt = event.offsetX; });
      this.plot.over.addEventListener("click", (event) => {
        if (Math.abs(event.offsetX - downAt) < LEAST_DRAG) onPick(this.plot.posToVal(event.offsetX, "x"));
      });
    }
    this.drawLegend();
  }

  drawLegend() {
    show(this.legend, this.channels.map((place, index) => {
      const { name, colour } = CHANNELS[place];
      if (!this.data[index + 1].some((value) => value !== null)) return null;
      const swatch = h("span", { class: "swatch" });
      swatch.style.background = colour;
      return h("li", {}, h("label", {}, h("input", {
        type: "checkbox",
        checked: !this.hidden.has(name),
        onchange: (event) => this.toggle(name, index, event.target.checked),
      }), swatch, label(name)));
    }));
  }

  toggle(name, index, shown) {
    if (shown) this.hidden.delete(name);
    else this.hidden.add(name);
    localStorage.setItem(`hidden ${this.key}`, JSON.stringify([...this.hidden]));
    this.plot?.setSeries(index + 1, { show: shown });
  }

  describe() {
    const parts = this.channels.map((place, index) => {
      const values = this.data[index + 1];
      const last = values.at(-1);
      return last === null || last === undefined ? null : `${label(CHANNELS[place].name)} ${last >= 0 ? "+" : ""}${last.toFixed(2)}`;
    }).filter((part) => part !== null);
    this.place.setAttribute("aria-label", `${this.title}. Latest: ${parts.join(", ") || "no readings"}.`);
  }

  select(from, to) {
    if (!this.plot) return;
    const left = this.plot.valToPos(from, "x");
    const right = this.plot.valToPos(to, "x");
    this.plot.setSelect({ left, width: right - left, top: 0, height: this.plot.bbox.height / devicePixelRatio }, false);
  }

  resize() {
    const width = this.place.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: this.height });
    else this.draw(this.data);
  }
}

export const GAS = CHANNELS.map((_, place) => place).filter((place) => CHANNELS[place].part !== "environment");
export const ENVIRONMENT = CHANNELS.map((_, place) => place).filter((place) => CHANNELS[place].part === "environment");

// Columns of `data`, of all twelve channels, that a chart of some of them shows.
export const columns = (data, places) => [data[0], ...places.map((place) => data[place + 1])];
