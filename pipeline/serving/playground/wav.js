/** Reads a WAV file of 16-bit samples while it arrives, and keeps it for a download. */
export class WavStream {
  #rest = new Uint8Array(0);
  #header = null;
  #data = [];

  /** New samples of each channel, in [-1, 1]; an empty list while the header is incomplete. */
  push(bytes) {
    let arrived = joined([this.#rest, bytes]);
    if (!this.#header) {
      const start = this.#readHeader(arrived);
      if (start === null) { this.#rest = arrived; return []; }
      this.#header = arrived.slice(0, start);
      arrived = arrived.slice(start);
    }
    const usable = arrived.length - arrived.length % (2 * this.channels);
    this.#rest = arrived.slice(usable);
    this.#data.push(arrived.slice(0, usable));
    const view = new DataView(arrived.buffer, arrived.byteOffset, usable);
    return Array.from({ length: this.channels }, (_, channel) => Float32Array.from(
      { length: usable / (2 * this.channels) },
      (_, frame) => view.getInt16(2 * (frame * this.channels + channel), true) / 32768,
    ));
  }

  /** The file as it came, tags included, with the sizes that a stream could not state. */
  blob() {
    const data = joined(this.#data);
    const header = this.#header.slice();
    const view = new DataView(header.buffer);
    view.setUint32(4, header.length - 8 + data.length, true);
    view.setUint32(header.length - 4, data.length, true);
    return new Blob([header, data], { type: "audio/wav" });
  }

  /** Where the samples begin; null if the header is not all there. */
  #readHeader(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 12; at + 8 <= bytes.length;) {
      const name = String.fromCharCode(...bytes.subarray(at, at + 4));
      if (name === "data") return at + 8;
      if (name === "fmt " && at + 16 <= bytes.length) {
        this.channels = view.getUint16(at + 10, true);
        this.rate = view.getUint32(at + 12, true);
      }
      const size = view.getUint32(at + 4, true);
      at += 8 + size + size % 2;
    }
    return null;
  }
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
