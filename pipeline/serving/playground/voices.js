/** The voices of the endpoint: the list, and new ones from a file or the microphone. */
import { asked, button, byId, element } from "./page.js";

const VOICES = "v1/audio/voices";

export class Voices {
  #select;
  #headers;
  #recording = null;
  #recorder = null;

  /**
   * @param select Field of the request that chooses a voice.
   * @param headers Function that gives the headers of a request to the endpoint.
   */
  constructor(select, headers) {
    this.#select = select;
    this.#headers = headers;
    select.addEventListener("change", () => this.#describe());
    byId("record").addEventListener("click", () => this.#record());
    byId("recording").addEventListener("change", (event) => this.#take(event.target.files[0]));
    byId("add-voice").addEventListener("submit", (event) => { event.preventDefault(); this.#add(); });
  }

  /** List the voices; throws where the endpoint does not answer. */
  async list() {
    const answer = await asked(VOICES, { headers: this.#headers() });
    const { voices } = answer;
    const chosen = this.#select.value;
    const option = ({ id, name, description }) => {
      const made = new Option(name, id, false, id === chosen);
      made.dataset.description = description;
      return made;
    };
    const others = document.createElement("optgroup");
    others.label = "Other names";
    others.append(...voices.filter(({ id, name }) => id !== name).map(option));
    this.#select.replaceChildren(...voices.filter(({ id, name }) => id === name).map(option), others);
    byId("voices").replaceChildren(
      ...voices.filter(({ id, name }) => id === name).map((voice) => this.#item(voice)));
    byId("add-voice").hidden = !answer.keeps_voices;
    byId("no-store").hidden = answer.keeps_voices;
    this.#describe();
    return answer;
  }

  #describe() {
    byId("voice-hint").textContent = this.#select.selectedOptions[0]?.dataset.description ?? "";
  }

  #item({ id, description, is_uploaded }) {
    const item = document.createElement("li");
    item.append(element("strong", id), element("small", description || "Uploaded."));
    item.append(button("Use", `Use the voice ${id}`, () => {
      this.#select.value = id;
      this.#select.dispatchEvent(new Event("change", { bubbles: true }));
      this.#select.form.elements.transcript.focus();
    }));
    if (is_uploaded) {
      item.append(button("Delete", `Delete the voice ${id}`, () => this.#delete(id)));
    }
    return item;
  }

  async #record() {
    if (this.#recorder) { this.#recorder.stop(); return; }
    if (!navigator.mediaDevices) {
      say("This browser records only on https or localhost; choose a file.");
      return;
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      say(`The microphone is not available: ${error.message}`);
      return;
    }
    const chunks = [];
    const recorder = this.#recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", ({ data }) => {
      chunks.push(data);
      byId("recorded").value = sizeOf(new Blob(chunks));
    });
    recorder.addEventListener("stop", () => {
      stream.getTracks().forEach((track) => track.stop());
      this.#recorder = null;
      recordButton("Record with the microphone", false);
      byId("recording").value = "";
      this.#take(new File(chunks, "recording", { type: recorder.mimeType }));
    });
    recorder.start(500);  // ms between the pieces
    recordButton("Stop recording", true);
  }

  #take(file) {
    this.#recording = file;
    byId("recorded").value = file ? `${sizeOf(file)}: ${file.name}` : "";
  }

  async #add() {
    if (!this.#recording) { say("Choose a file, or record one."); return; }
    const form = byId("add-voice");
    const body = new FormData(form);
    body.append("audio_sample", this.#recording, this.#recording.name);
    try {
      const voice = await asked(VOICES, { method: "POST", headers: this.#headers(), body });
      form.reset();
      this.#take(undefined);
      await this.list();
      say(`The voice ${voice.id} was added.`);
    } catch (error) { say(error.message); }
  }

  async #delete(id) {
    try {
      await asked(`${VOICES}/${id}`, { method: "DELETE", headers: this.#headers() });
      await this.list();
      say(`The voice ${id} was deleted.`);
    } catch (error) { say(error.message); }
  }
}

function recordButton(text, isPressed) {
  byId("record").textContent = text;
  byId("record").setAttribute("aria-pressed", String(isPressed));
}

const sizeOf = (file) => `${Math.ceil(file.size / 1024)} KiB`;

function say(text) { byId("voice-status").textContent = text; }
