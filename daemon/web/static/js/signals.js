// Readings as log-conductances above clean air, as models/signals.py computes them.

// Position of the channel in a row, after the time; how its number becomes a signal; its colour.
export const CHANNELS = [
  { name: "NO2", part: "grove", colour: "#2f6fde" },
  { name: "C2H5OH", part: "grove", colour: "#d9480f" },
  { name: "VOC", part: "grove", colour: "#0d9488" },
  { name: "CO", part: "grove", colour: "#9333ea" },
  { name: "Alcohol", part: "mq", colour: "#b7791f" },
  { name: "LPG", part: "mq", colour: "#c2255c" },
  { name: "Benzene", part: "mq", colour: "#5c940d" },
  { name: "Temperature", part: "environment", unit: "\u00b0C", colour: "#e8590c" },
  { name: "Pressure", part: "environment", unit: "hPa", colour: "#4263eb" },
  { name: "Humidity", part: "environment", unit: "%RH", colour: "#0c8599" },
  { name: "Gas_Resistance", part: "bme", colour: "#64748b" },
  { name: "Altitude", part: "environment", unit: "m", colour: "#868e96" },
];

const FULL_SCALE = 1023;
const MQ_FLOOR_PPM = 0.5;

export function signal(part, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return null;
  if (part === "grove") {
    const count = Math.min(Math.max(value, 1), FULL_SCALE - 1);
    return Math.log(count / (FULL_SCALE - count));
  }
  if (part === "mq") return Math.log(Math.max(value, MQ_FLOOR_PPM));
  if (part === "bme") return value > 0 ? -Math.log(value) : null;
  return value;
}

const LEAST = 5;
const CLEAN_SHARE = 0.2;

function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}

// The clean air of a stretch: the median of each channel over the given readings.
export function cleanAir(rows) {
  return CHANNELS.map(({ part }, place) => median(rows.map((row) => signal(part, row[place + 1]))));
}

// Of readings without known clean air: those in which the channels stand lowest.
export function cleanestRows(rows) {
  const gas = CHANNELS.map(({ part }, place) => ({ part, place })).filter(({ part }) => part !== "environment");
  const scored = rows.map((row) => ({ row, sum: gas.reduce((sum, { part, place }) => sum + (signal(part, row[place + 1]) ?? 0), 0) }));
  scored.sort((a, b) => a.sum - b.sum);
  return scored.slice(0, Math.max(LEAST, Math.ceil(scored.length * CLEAN_SHARE))).map(({ row }) => row);
}

// [times in seconds before the last reading, a list of values for each channel] for a chart.
export function aboveCleanAir(rows, clean) {
  if (!rows.length) return [[], ...CHANNELS.map(() => [])];
  const last = rows.at(-1)[0];
  return [
    rows.map((row) => (row[0] - last) / 1000),
    ...CHANNELS.map(({ part }, place) => rows.map((row) => {
      const value = signal(part, row[place + 1]);
      return value === null || clean[place] === null ? null : value - clean[place];
    })),
  ];
}

const STEADY_S = 30;
const STEADY_STEP = 0.04;

// Names of the gas channels that still move: the median of the last 15 s against the 15 s before.
export function movingChannels(rows) {
  if (rows.length < 6) return null;
  const last = rows.at(-1)[0];
  const recent = rows.filter((row) => row[0] > last - STEADY_S * 1000);
  if (recent[0][0] > last - STEADY_S * 800) return null;
  const half = last - STEADY_S * 500;
  const before = cleanAir(recent.filter((row) => row[0] <= half));
  const after = cleanAir(recent.filter((row) => row[0] > half));
  return CHANNELS.filter(({ part }, place) => part !== "environment" && before[place] !== null && Math.abs(after[place] - before[place]) > STEADY_STEP).map(({ name }) => name);
}
