// Calls to the server, and requests to the rig, whose answers come over the live connection.

export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function call(path, { method = "GET", body } = {}) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = body instanceof Blob ? "application/octet-stream" : "application/json";
    options.body = body instanceof Blob ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, "The server of this page does not answer. Is scentd web still running?");
  }
  let value = {};
  try {
    value = await response.json();
  } catch { /* an answer without a body */ }
  if (!response.ok) throw new ApiError(response.status, value.error ?? `The server answered with ${response.status}.`);
  return value;
}

export class Requests {
  constructor(live) {
    this.live = live;
    this.waiting = new Map();
    live.addEventListener("answer", (event) => this.receive(event.detail));
    // What was answered while the connection was down is asked for.
    live.addEventListener("connection", (event) => { if (event.detail.open) this.catchUp(); });
  }

  // Sends a request to the rig that the page shows; resolves to the data of its answer.
  async send(command, payload = {}, onProgress = () => {}) {
    const { transaction } = await call(`api/rigs/${this.live.rig}/requests/${command}`, { method: "POST", body: payload });
    return new Promise((resolve, reject) => {
      this.waiting.set(transaction, { resolve, reject, onProgress });
      // The answer may have come before this line.
      call(`api/answers/${transaction}`).then((answer) => this.receive(answer), () => {});
    });
  }

  receive(answer) {
    const waiting = this.waiting.get(answer.transaction);
    if (!waiting || answer.status === undefined) return;
    if (answer.status === "working") {
      waiting.onProgress(answer.data ?? {});
      return;
    }
    this.waiting.delete(answer.transaction);
    if (answer.status === "ok") waiting.resolve(answer.data ?? {});
    else waiting.reject(new ApiError(422, answer.error ?? "The rig refused without saying why."));
  }

  catchUp() {
    for (const transaction of this.waiting.keys()) {
      call(`api/answers/${transaction}`).then((answer) => this.receive(answer), () => {
        this.waiting.get(transaction)?.reject(new ApiError(410, "The answer was lost. Check what the rig has done."));
        this.waiting.delete(transaction);
      });
    }
  }
}
