/** What the parts of the page share: its elements, and answers of the endpoint. */
export const byId = (id) => document.getElementById(id);

/** An answer of the endpoint that is not the one that was asked for. */
export class RefusedError extends Error {
  constructor(message, status, param) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** The error of a response that is not OK. */
export async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return new RefusedError(error?.message ?? `HTTP ${response.status}`, response.status, error?.param);
}

/** An element with text, which is never read as HTML. */
export function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** A button, with a label for screen readers. */
export function button(text, label, action) {
  const made = element("button", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

/** The JSON that the endpoint answers; throws what it refuses. */
export async function asked(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}
