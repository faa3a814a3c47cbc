/** The page: what is asked for, how it is made, and what is seen and heard of it. */
import { curlOf, pythonOf } from "./code.js";
import { History } from "./history.js";
import { byId, refusal } from "./page.js";
import { Picture } from "./picture.js";
import { Player } from "./player.js";
import { Voices } from "./voices.js";
import { WavStream } from "./wav.js";

const PATH = "v1/audio/generations";
const NUMBERS = ["seconds", "seed", "num_flow_steps", "guidance_scale", "temperature"];
const form = byId("request");
const whole = byId("whole");
const download = byId("download");
const playhead = byId("playhead");
const picture = new Picture(byId("waveform"), byId("spectrogram"));
const voices = new Voices(form.elements.voice, authorization);
const history = new History(byId("history"), byId("forget"), (body) => ask(body));
let sampleRate = null;
let current = null;  // the request under way: AbortController and Player

function authorization() {
  const key = byId("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Fields of the form that are shown and not empty. */
function requestBody() {
  const body = {};
  for (const [name, value] of new FormData(form)) {
    if (value.trim() === "" || (name === "voice" && value === "default")) continue;
    body[name] = NUMBERS.includes(name) ? Number(value) : value;
  }
  return body;
}

/** Put a request into the form and generate it. */
function ask(body) {
  for (const field of form.elements) {
    if (!field.name || field.name === "modality") continue;
    field.value = body[field.name] ?? (field.name === "voice" ? "default" : "");
  }
  if (!form.elements.voice.value) form.elements.voice.value = "default";  // another bundle's
  form.elements.modality.value = body.modality;
  form.elements.voice.dispatchEvent(new Event("change"));
  formChanged();
  form.requestSubmit();
}

function formChanged() {
  const modality = form.elements.modality.value;
  for (const part of form.querySelectorAll("[data-only]")) {
    part.hidden = part.dataset.only !== modality;
    part.querySelectorAll("textarea, select, input").forEach((f) => { f.disabled = part.hidden; });
  }
  form.elements.description.required = modality !== "speech";
  form.elements.transcript.required = modality === "speech";
  showCode(requestBody());
}

function showCode(body) {
  const url = new URL(PATH, location.href).href;
  const hasKey = "Authorization" in authorization();
  byId("curl").textContent = curlOf(url, body, hasKey);
  byId("python").textContent = pythonOf(url, body, hasKey);
}

function say(text) { byId("status").textContent = text; }

function complain(text, field = null) {
  byId("problem").textContent = text;
  for (const other of form.elements) other.removeAttribute("aria-invalid");
  if (!(field instanceof Element) || field.disabled) return;
  const details = field.closest("details");
  if (details) details.open = true;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

/** Generate audio: play and draw it as it arrives. */
async function generate({ abort, player }) {
  const body = requestBody();
  const began = performance.now();
  const response = await fetch(PATH, {
    method: "POST",
    signal: abort.signal,
    headers: { "Content-Type": "application/json", ...authorization() },
    body: JSON.stringify({ ...body, response_format: "wav", stream: true }),
  });
  if (!response.ok) throw await refusal(response);
  const firstMs = Math.round(performance.now() - began);
  const wav = new WavStream();
  const reader = response.body.getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    const isFirst = wav.rate === undefined;
    const channels = wav.push(value);
    if (isFirst && wav.rate !== undefined) begin(wav, firstMs);
    picture.push(channels);
    player.push(channels, wav.rate);
    picture.draw();
  }
  picture.end();
  finish(wav, player, { ...body, seed: Number(response.headers.get("X-Seed")) }, {
    firstMs, totalS: (performance.now() - began) / 1000,
  });
}

function begin(wav, firstMs) {
  say(`Playing while it is generated, first audio after ${firstMs} ms.`);
  picture.reset(wav.rate);
  byId("frequency").textContent = `${wav.rate / 2000} kHz, mel scale`;
  playhead.hidden = false;
}

function finish(wav, player, body, { firstMs, totalS }) {
  URL.revokeObjectURL(whole.src);
  whole.src = download.href = URL.createObjectURL(wav.blob());
  whole.hidden = download.hidden = false;
  download.download = `${body.modality}-${body.seed}.wav`;
  const seconds = `${player.duration.toFixed(2)} seconds`;
  byId("waveform").setAttribute("aria-label", `Waveform of ${seconds} of ${body.modality}`);
  byId("spectrogram").setAttribute("aria-label", `Spectrogram of ${seconds} of ${body.modality}`);
  history.add(body);
  showCode(body);
  say(`${seconds} in ${totalS.toFixed(1)} s, first audio after ${firstMs} ms; seed ${body.seed}.`);
}

function halt(run) {
  run.abort.abort();
  run.player.stop();
}

function movePlayhead() {
  const { player } = current ?? {};
  const isLive = player?.isPlaying;
  const share = isLive ? player.position / player.duration : whole.currentTime / whole.duration;
  playhead.style.left = `${100 * (share || 0)}%`;
  const isBusy = Boolean(current?.isGenerating || isLive);
  byId("stop").disabled = !isBusy;
  if (isBusy || !whole.paused) requestAnimationFrame(movePlayhead);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (current) halt(current);
  whole.pause();
  complain("");
  const run = current = {
    abort: new AbortController(), player: new Player(sampleRate), isGenerating: true,
  };
  say("Waiting for the first audio.");
  requestAnimationFrame(movePlayhead);
  byId("picture").scrollIntoView({ block: "nearest" });  // on a phone it is below the form
  try {
    await generate(run);
  } catch (error) {
    if (run !== current) return;  // another one was begun
    if (error.name === "AbortError") say("Stopped.");
    else {
      say("Failed.");
      complain(error.message, form.elements[error.param]);
      if (error.status === 401) complain(error.message, byId("key"));
    }
  } finally { run.isGenerating = false; }
});
form.addEventListener("input", formChanged);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
byId("stop").addEventListener("click", () => halt(current));
whole.addEventListener("play", () => {
  current?.player.stop();
  requestAnimationFrame(movePlayhead);
});
whole.addEventListener("seeked", movePlayhead);
byId("examples").addEventListener("click", ({ target }) => {
  if (target.dataset.body) ask(JSON.parse(target.dataset.body));
});
document.querySelectorAll("[data-copies]").forEach((copy) => {
  copy.addEventListener("click", async () => {
    const code = byId(copy.dataset.copies);
    getSelection().selectAllChildren(code);
    await navigator.clipboard?.writeText(code.textContent);  // not there without https
    copy.textContent = navigator.clipboard ? "Copied" : "Selected";
  });
});
byId("key").addEventListener("change", listVoices);

async function listVoices() {
  try {
    sampleRate = (await voices.list()).sample_rate;
    complain("");
  } catch (error) {
    const asksForKey = error.status === 401;
    complain(asksForKey ? "This endpoint asks for an API key." :
      `The endpoint is not ready: ${error.message}. Reload in a moment.`, asksForKey ? byId("key") : null);
  }
}

formChanged();
listVoices();
