/** Waveform and spectrogram of audio that grows, each on a canvas of its own. */
const NUM_ROWS = 96;
const WINDOW_S = 0.032;
const RANGE_DB = [-90, -10];
/** Colours from silence to loud, as red, green, blue. */
const COLOURS = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];

export class Picture {
  #waveform;
  #spectrogram;
  #columns = [];  // levels of the rows, 0 to 255
  #peaks = [];  // least and greatest sample
  #tail = new Float32Array(0);

  constructor(waveform, spectrogram) {
    this.#waveform = waveform;
    this.#spectrogram = spectrogram;
    new ResizeObserver(() => this.draw()).observe(spectrogram);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Begin anew, with audio of this rate. */
  reset(rate) {
    this.#columns = [];
    this.#peaks = [];
    this.#tail = new Float32Array(0);
    this.size = 2 ** Math.round(Math.log2(rate * WINDOW_S));
    this.window = Float32Array.from(
      { length: this.size }, (_, n) => 0.5 - 0.5 * Math.cos(2 * Math.PI * n / this.size));
    this.bands = melBands(rate, this.size);
  }

  /** Append the samples of each channel. */
  push(channels) {
    if (!channels.length) return;
    const mono = new Float32Array(this.#tail.length + channels[0].length);
    mono.set(this.#tail);
    for (let n = 0; n < channels[0].length; n++) {
      let sum = 0;
      for (const channel of channels) sum += channel[n];
      mono[this.#tail.length + n] = sum / channels.length;
    }
    const hop = this.size / 4;
    let at = 0;
    for (; at + this.size <= mono.length; at += hop) {
      const piece = mono.subarray(at, at + this.size);
      this.#columns.push(this.#levels(piece));
      const fresh = piece.subarray(0, hop);
      this.#peaks.push([fresh.reduce((a, b) => Math.min(a, b)), fresh.reduce((a, b) => Math.max(a, b))]);
    }
    this.#tail = mono.slice(at);
  }

  /** Draw the last samples too, of which no window is full. */
  end() {
    this.push([new Float32Array(this.size * 3 / 4)]);
    this.draw();
  }

  draw() {
    this.#drawWaveform();
    this.#drawSpectrogram();
  }

  #levels(samples) {
    const powers = powerSpectrum(samples, this.window);
    const [least, greatest] = RANGE_DB;
    return Uint8Array.from(this.bands, ([from, to]) => {
      let power = 0;
      for (let bin = from; bin < to; bin++) power = Math.max(power, powers[bin]);
      // A full-scale sine has a quarter of the window's length in its bin.
      const db = 10 * Math.log10(power / (this.size / 4) ** 2 + 1e-12);
      return 255 * Math.min(1, Math.max(0, (db - least) / (greatest - least)));
    });
  }

  #drawWaveform() {
    const [context, width, height] = surface(this.#waveform);
    context.fillStyle = getComputedStyle(this.#waveform).getPropertyValue("--accent");
    const y = (sample) => height / 2 * (1 - sample);
    for (let x = 0; x < width && this.#peaks.length; x++) {
      const [from, to] = columnsAt(x, width, this.#peaks.length);
      const peaks = this.#peaks.slice(from, to);
      const top = y(Math.max(...peaks.map(([, greatest]) => greatest)));
      const bottom = y(Math.min(...peaks.map(([least]) => least)));
      context.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  #drawSpectrogram() {
    const [context, width, height] = surface(this.#spectrogram);
    if (!this.#columns.length) return;
    const image = new ImageData(width, NUM_ROWS);
    for (let x = 0; x < width; x++) {
      const [from, to] = columnsAt(x, width, this.#columns.length);
      for (let row = 0; row < NUM_ROWS; row++) {
        let level = 0;
        for (let column = from; column < to; column++) {
          level = Math.max(level, this.#columns[column][row]);
        }
        image.data.set(PALETTE[level], 4 * ((NUM_ROWS - 1 - row) * width + x));
      }
    }
    const small = new OffscreenCanvas(width, NUM_ROWS);
    small.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(small, 0, 0, width, height);
  }
}

/** An empty canvas with a pixel for each pixel of the screen: context, width, height. */
function surface(canvas) {
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  return [canvas.getContext("2d"), canvas.width, canvas.height];
}

/** The columns that fall on pixel x, at least one. */
function columnsAt(x, width, numColumns) {
  const from = Math.floor(x * numColumns / width);
  return [from, Math.max(from + 1, Math.floor((x + 1) * numColumns / width))];
}

/** First bin and bin after the last of each row: even steps in mel from 0 Hz to the highest. */
function melBands(rate, size) {
  const mel = (hz) => 2595 * Math.log10(1 + hz / 700);
  const step = mel(rate / 2) / NUM_ROWS;
  const bin = (row) => 700 * (10 ** (row * step / 2595) - 1) * size / rate;
  return Array.from({ length: NUM_ROWS }, (_, row) => {
    const from = Math.floor(bin(row));
    return [from, Math.max(from + 1, Math.floor(bin(row + 1)))];
  });
}

/** Squared magnitudes of the bins below the highest, by the fast Fourier transform of radix 2. */
export function powerSpectrum(samples, window) {
  const size = samples.length;
  const re = new Float32Array(size);
  const im = new Float32Array(size);
  const numBits = Math.log2(size);
  for (let n = 0; n < size; n++) {
    let reversed = 0;
    for (let bit = 0; bit < numBits; bit++) reversed |= (n >> bit & 1) << numBits - 1 - bit;
    re[reversed] = samples[n] * window[n];
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cos = Math.cos(Math.PI * k / half);
      const sin = -Math.sin(Math.PI * k / half);
      for (let a = k; a < size; a += 2 * half) {
        const b = a + half;
        const oddRe = re[b] * cos - im[b] * sin;
        const oddIm = re[b] * sin + im[b] * cos;
        re[b] = re[a] - oddRe; im[b] = im[a] - oddIm;
        re[a] += oddRe; im[a] += oddIm;
      }
    }
  }
  return Float32Array.from({ length: size / 2 }, (_, bin) => re[bin] ** 2 + im[bin] ** 2);
}

const PALETTE = Array.from({ length: 256 }, (_, level) => {
  const place = level / 255 * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  const mix = (a, b) => a + (b - a) * (place - below);
  return [...COLOURS[below].map((value, c) => mix(value, COLOURS[below + 1][c])), 255];
});
