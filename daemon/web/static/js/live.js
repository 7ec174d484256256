// The connection to the server: what the rigs publish, as events; connects again by itself.

const RETRY_MS = [500, 1000, 2000, 5000, 10000];

export class Live extends EventTarget {
  constructor() {
    super();
    this.rig = null;
    this.socket = null;
    this.failures = 0;
    this.silent = false;
  }

  connect() {
    const address = new URL("api/live", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.failures = 0;
      this.emit("connection", { open: true });
      this.watch(this.rig);
    });
    socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      this.emit(message.kind, message);
    });
    socket.addEventListener("close", () => {
      const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      this.emit("connection", { open: false, failures: this.failures });
      setTimeout(() => this.connect(), wait);
    });
  }

  watch(rig) {
    this.rig = rig;
    if (rig && this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ watch: rig }));
  }

  emit(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
