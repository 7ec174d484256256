// Numbers, times and states as people read them.

export const STATES = {
  warming_up: "Warming up",
  ambient: "Clean air",
  sensing: "Smells something",
  recognised: "Recognised",
  unrecognised: "Unknown smell",
  recovering: "Airing out",
  fault: "Fault",
  disabled: "Cannot run",
};

const EVENTS = {
  onset: "An odour began",
  recognised: "Recognised",
  unrecognised: "Unknown smell",
  listed: "Narrowed down",
  ended: "The odour ended",
  channel_fault: "A channel failed",
  channel_recovered: "A channel works again",
  board_lost: "The board sends nothing",
  board_back: "The board sends readings again",
  recording_paused: "The recording paused",
  recording_resumed: "The recording resumed",
  reloaded: "Configuration read again",
  reload_refused: "New configuration refused",
  feedback: "Feedback",
};

export const label = (name) => (name ?? "").replaceAll("_", " ");
export const percent = (share) => (share === null || share === undefined ? "-" : `${Math.round(share * 100)} %`);
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export function clock(ts) {
  const date = new Date(ts);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function dayAndClock(ts) {
  const date = new Date(ts);
  if (Number.isNaN(date.getTime())) return "";
  const today = new Date().toDateString() === date.toDateString();
  const day = today ? "" : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, `;
  return day + clock(ts);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  const whole = Math.round(seconds);
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.round(whole / 60)} min`;
  if (whole < 129600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

export const megabytes = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1000))} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

const NAMED = ["recognised", "listed", "feedback"];

const namedSmell = (item) => item.label ?? item.detail;

// Events in their order. A single smell is recognised by itself and as the only component of a
// mixture; it is shown once.
export function distinctEvents(events) {
  let last = null;
  return events.filter((event) => {
    if (event.type === "onset" || event.type === "unrecognised") last = null;
    if (event.type !== "recognised") return true;
    const repeated = namedSmell(event) === last;
    last = namedSmell(event);
    return !repeated;
  });
}

// The same of announcements, of which the newest comes first; one with a verdict is kept.
export function distinctAnnouncements(items) {
  const last = new Map();
  return items.toReversed().filter((item) => {
    const odour = `${item.boot_id} ${item.onset_ms}`;
    const name = item.type === "recognised" ? namedSmell(item) : item.type;
    const repeated = item.type === "recognised" && last.get(odour) === name;
    last.set(odour, name);
    return !repeated || item.feedback;
  }).reverse();
}

// What made a prediction, as people say it: "taught" stands for the smells that the rig was taught.
export const maker = (model) => (model === "taught" ? "taught on this rig" : `model ${model}`);

// What an event says after its time. Only details that hold names of smells have underscores in them.
export function eventText(event) {
  const parts = [EVENTS[event.type] ?? event.type];
  if (event.label && event.type !== "feedback") parts.push(label(event.label)); // the detail of feedback says all
  if (event.channel) parts.push(label(event.channel));
  if (event.detail) parts.push(NAMED.includes(event.type) ? label(event.detail) : event.detail);
  return parts.join(": ") + (event.probability ? ` (${percent(event.probability)})` : "");
}

// "coffee 75 %, tea 20 %" of [{label, share}].
export const shares = (list) => list.map((item) => `${label(item.label)} ${percent(item.share)}`).join(", ");
