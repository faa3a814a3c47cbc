/** Plays samples as they arrive, one after the other without a gap. */
export class Player {
  #context;
  #begins = 0;  // of the next samples, on the clock of the context
  #silent = 0;  // seconds of the clock in which nothing could be played
  duration = 0;

  /** Call it in the handler of a click: browsers let no page play by itself. */
  constructor(rate) {
    // At the rate of the audio no chunk is resampled by itself, which would click at its ends.
    this.#context = new AudioContext(rate ? { sampleRate: rate } : {});
    this.#context.resume();
  }

  /** Append the samples of each channel. */
  push(channels, rate) {
    if (this.#context.state === "closed" || !channels.length || !channels[0].length) return;
    const buffer = this.#context.createBuffer(channels.length, channels[0].length, rate);
    channels.forEach((samples, index) => buffer.copyToChannel(samples, index));
    const earliest = this.#context.currentTime + 0.05;
    if (this.#begins < earliest) {
      const start = Math.ceil(earliest * rate) / rate;
      this.#silent += start - this.#begins;
      this.#begins = start;
    }
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    source.start(this.#begins);
    this.#begins += buffer.duration;
    this.duration += buffer.duration;
  }

  /** Seconds of audio played so far. */
  get position() {
    return Math.min(this.duration, Math.max(0, this.#context.currentTime - this.#silent));
  }

  get isPlaying() {
    return this.#context.state !== "closed" && this.position < this.duration;
  }

  stop() {
    if (this.#context.state !== "closed") this.#context.close();
  }
}
