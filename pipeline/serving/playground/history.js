/** Requests that were made, with their seeds, in the storage of the browser. */
import { button, element } from "./page.js";

const KEY = "audiocalm.history";
const MAX_ENTRIES = 50;

export class History {
  #list;
  #forget;
  #replay;

  /** @param replay Called with the body of a request that is to be made again. */
  constructor(list, forget, replay) {
    this.#list = list;
    this.#forget = forget;
    this.#replay = replay;
    forget.addEventListener("click", () => { save([]); this.#show(); });
    this.#show();
  }

  /** Put a request at the top; one that was made before moves there. */
  add(body) {
    const same = JSON.stringify(body);
    const others = saved().filter((entry) => JSON.stringify(entry) !== same);
    save([body, ...others].slice(0, MAX_ENTRIES));
    this.#show();
  }

  #show() {
    const entries = saved();
    this.#forget.hidden = entries.length === 0;
    this.#list.replaceChildren(...entries.map((body) => this.#item(body)));
  }

  #item(body) {
    const item = document.createElement("li");
    const text = body.transcript ?? body.description;
    const facts = [body.modality, body.transcript && body.voice, `seed ${body.seed}`];
    item.append(element("strong", text), element("small", facts.filter(Boolean).join(", ")));
    item.append(button("Again", `Generate again: ${text}`, () => this.#replay(body)));
    return item;
  }
}

function saved() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch { return []; }  // storage is blocked, or holds something else
}

function save(entries) {
  try {
    localStorage.setItem(KEY, JSON.stringify(entries));
  } catch { /* storage is blocked or full: the page works without a history */ }
}
