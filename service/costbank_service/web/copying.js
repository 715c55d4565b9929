// Buttons that copy a text, and the commands that give what a panel shows.

import { base, key, url } from "./api.js";
import { announce, el } from "./dom.js";

// Exactly this text. The clipboard's own interface is missing where the service is reached by plain HTTP.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const give = (event) => {
      event.clipboardData.setData("text/plain", text);
      event.preventDefault();
    };
    document.addEventListener("copy", give, { once: true });
    document.execCommand("copy");
    document.removeEventListener("copy", give);
  }
}

export function copyButton(label, text, title = undefined) {
  const button = el("button", {
    type: "button", title, text: label,
    onclick: async () => {
      await copy(typeof text === "function" ? text() : text);
      announce(`${label}: copied`);
      button.dataset.done = "yes";
      setTimeout(() => delete button.dataset.done, 1500);
    },
  });
  return button;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl(path, query = {}, accept = "") {
  const authorization = key() ? ' -H "Authorization: Bearer $COSTBANK_API_KEY"' : "";
  const output = accept ? ` -H ${quoted(`Accept: ${accept}`)} -o array.npy` : "";
  return `curl${authorization}${output} ${quoted(url(path, query))}`;
}

export const asPython = (reference, ...lines) => [
  "from costbank import open_bank", "",
  `bank = open_bank(${JSON.stringify(`${base}/v1/banks/${reference}`)})`, ...lines, "",
].join("\n");

export const copyRow = (curl, python) => el("p", { class: "copies" },
  copyButton("Copy as curl", curl), copyButton("Copy as Python", python));
