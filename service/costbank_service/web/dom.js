// Elements from a name, properties and children. Text is always text: no HTML is ever parsed.

const SLOW_MS = 250;

export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (key === "style") Object.assign(element.style, value);
    else if (key === "text") element.textContent = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// A token's text on its own: neither its direction nor its spaces affect what is around it.
export const tokenText = (text) => el("bdi", { class: "token", text });

export const announce = (text) => { byId("announcement").textContent = text; };

export const number = (value) => value.toLocaleString("en");
export const cost = (value) => value.toFixed(4);
export const percent = (share) => {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(1) : value.toPrecision(2)} %`;
};

// The element for an error: what is wrong, what to do, and the id under which the service's log has it.
export function problemBox(error) {
  return el("div", { class: "problem", role: "alert" },
    el("strong", { text: error.title ?? "The page failed" }), el("p", { text: error.message }),
    error.hint ? el("p", { text: error.hint }) : null,
    error.requestId ? el("p", { class: "hint", text: `request ${error.requestId}` }) : null);
}

// Mark an element as busy until `work` ends; say so in words if it takes a while and nothing else is shown.
export async function busy(element, text, work) {
  element.setAttribute("aria-busy", "true");
  const timer = setTimeout(() => element.append(el("p", { class: "hint waiting", role: "status", text })), SLOW_MS);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
    element.removeAttribute("aria-busy");
    for (const waiting of element.querySelectorAll(":scope > .waiting")) waiting.remove();
  }
}

// `work(signal)`, of which only the last call of one owner may show its result or its error.
export function latest(show) {
  let controller = null;
  return async (work, onError = (error) => show(problemBox(error))) => {
    controller?.abort();
    const mine = controller = new AbortController();
    try {
      const result = await work(mine.signal);
      if (!mine.signal.aborted) return result;
    } catch (error) {
      if (!mine.signal.aborted) onError(error);
    }
    return undefined;
  };
}
