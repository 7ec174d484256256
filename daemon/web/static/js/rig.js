// What the page knows of the rig that it shows, kept up to date by the live connection.

const HISTORY_MS = 600_000;
const EVENTS_KEPT = 1000;

const labelsOf = (models) => [...new Set(models.flatMap((model) => model.labels))].sort();

export class RigState extends EventTarget {
  constructor(live) {
    super();
    this.clear();
    live.addEventListener("snapshot", (event) => this.load(event.detail));
    for (const topic of ["substance", "mixture"]) {
      live.addEventListener(topic, (event) => this.addPrediction(topic, event.detail.payload));
    }
    live.addEventListener("event", (event) => this.addEvent(event.detail.payload));
    live.addEventListener("readings", (event) => this.addReadings(event.detail.rows));
    for (const topic of ["health", "info"]) {
      live.addEventListener(topic, (event) => { this[topic] = event.detail.payload; this.changed(topic); });
    }
    live.addEventListener("rigs", (event) => {
      const own = event.detail.rigs.find((rig) => rig.rig === this.rig);
      if (!own) return;
      this.status = own.status;
      this.sensorStatus = own.sensor_status;
      this.changed("status");
    });
  }

  clear() {
    Object.assign(this, { rig: null, status: null, sensorStatus: null, info: null, health: null, predictions: new Map(), events: [], readings: [], hasRecordings: false, teaching: [] });
  }

  load(snapshot) {
    this.clear();
    this.rig = snapshot.rig;
    this.status = snapshot.status;
    this.sensorStatus = snapshot.sensor_status;
    this.info = snapshot.info;
    this.health = snapshot.health;
    for (const { topic, payload } of snapshot.predictions) this.predictions.set(`${topic} ${payload.model}`, { topic, payload });
    this.events = snapshot.events;
    this.readings = snapshot.readings;
    this.hasRecordings = snapshot.has_recordings;
    this.teaching = snapshot.teaching;
    this.changed("all");
  }

  addPrediction(topic, payload) {
    this.predictions.set(`${topic} ${payload.model}`, { topic, payload });
    this.changed("prediction");
  }

  addEvent(payload) {
    this.events.push(payload);
    if (this.events.length > EVENTS_KEPT) this.events.shift();
    this.changed("event");
  }

  addReadings(rows) {
    for (const row of rows) {
      if (this.readings.length && row[0] < this.readings.at(-1)[0]) this.readings = [];
      this.readings.push(row);
    }
    const oldest = this.readings.at(-1)[0] - HISTORY_MS;
    while (this.readings[0][0] < oldest) this.readings.shift();
    this.changed("readings");
  }

  // Predictions by their state: recognised first, disabled last.
  get ordered() {
    const rank = ({ payload }) => ["recognised", "unrecognised", "sensing", "recovering", "ambient", "warming_up", "fault", "disabled"].indexOf(payload.state);
    return [...this.predictions.values()].sort((a, b) => rank(a) - rank(b));
  }

  get knownLabels() {
    return labelsOf(this.info?.models ?? []);
  }

  // The taught ones before those of the models; a negative smell has none.
  labelsWith(smells) {
    const taught = smells.filter((smell) => !smell.negative).map((smell) => smell.label);
    return [...new Set([...taught, ...this.knownLabels])];
  }

  // Those that can be hidden or renamed.
  get singleLabels() {
    return labelsOf((this.info?.models ?? []).filter((model) => model.task === "substance"));
  }

  changed(what) {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}
