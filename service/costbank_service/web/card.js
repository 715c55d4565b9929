// The chosen token with its nearest tokens, the tokens visited, and examples while no token is chosen.

import { bankPath, get } from "./api.js";
import { asCurl, asPython, copyButton, copyRow } from "./copying.js";
import { announce, byId, cost, el, latest, number, tokenText } from "./dom.js";
import { addToSet, change, onChange, state, walk } from "./state.js";

const COUNTS = [10, 20, 50, 100];
const listeners = [];
const texts = new Map(); // by bank and id

export const onNeighbors = (listener) => listeners.push(listener);

export async function textOf(id, signal = undefined) {
  const name = `${state.bank} ${id}`;
  if (!texts.has(name)) {
    const { token } = await get(`${bankPath(state.bank)}/tokens/${id}`, {}, signal);
    texts.set(name, token.text);
  }
  return texts.get(name);
}

export function startCard() {
  const card = byId("card");
  const run = latest((box) => card.replaceChildren(box));

  const draw = async () => {
    if (!state.bank) return;
    const bank = state.bank;
    drawTrail();
    const drawn = await run(async (signal) => {
      if (state.token === "") return examples(await get(`${bankPath(bank)}/examples`, {}, signal));
      const query = { token_id: state.token, k: state.k };
      const [answer, { token }] = await Promise.all([
        get(`${bankPath(bank)}/nearest`, query, signal),
        get(`${bankPath(bank)}/tokens/${state.token}`, {}, signal)]);
      texts.set(`${bank} ${token.id}`, token.text);
      for (const neighbor of answer.neighbors) texts.set(`${bank} ${neighbor.id}`, neighbor.text);
      for (const listener of listeners) listener(answer);
      return tokenCard(bank, token, answer, query);
    });
    if (!drawn) return;
    const focused = card.contains(document.activeElement) ? document.activeElement : null;
    card.replaceChildren(...drawn);
    if (focused?.matches("select")) card.querySelector("select")?.focus();
    else if (focused) (card.querySelector(".neighbors button") ?? card.querySelector("button"))?.focus();
  };

  onChange((changed) => { if (changed.has("bank")) texts.clear(); });
  onChange((changed) => { if (["bank", "token", "k"].some((name) => changed.has(name))) draw(); });
  draw();
}

const runTrail = latest(() => {});

async function drawTrail() {
  const trail = byId("trail"), ids = state.trail.filter((id) => String(id) !== state.token);
  const names = await runTrail((signal) => Promise.all(ids.map((id) => textOf(id, signal).catch(() => `id ${id}`))));
  if (names) trail.replaceChildren(...(ids.length ? [el("span", { class: "hint", text: "visited " })] : []),
    ...ids.map((id, position) => el("button", { type: "button", onclick: () => walk(id) }, tokenText(names[position]))));
}

function examples({ examples: entries }) {
  if (!entries.length) return [el("p", { class: "hint", text: "Search for a token to see its nearest tokens." })];
  const rows = entries.map(({ token, neighbors }) => el("tr", {},
    el("th", { scope: "row" }, tokenButton(token)),
    el("td", {}, ...neighbors.flatMap((neighbor) => [tokenButton(neighbor), " "]))));
  return [el("h3", { text: "Examples" }), el("div", { class: "scrolled" }, el("table", { class: "examples" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "token" }),
      el("th", { scope: "col", text: "nearest, by ascending cost" }))), el("tbody", {}, ...rows)))];
}

const tokenButton = ({ id, text }) => el("button", { type: "button", class: "plain", onclick: () => walk(id) }, tokenText(text));

function tokenCard(bank, token, answer, query) {
  const facts = [`id ${token.id}`, token.status, token.count === null ? "count unknown" : `count ${number(token.count)}`];
  const text = exactText(token.bytes);
  const nearest = answer.neighbors.map(({ id }) => id);
  announce(`${token.text}: ${nearest.length} nearest tokens`);
  return [
    el("h3", { class: "chosen" }, tokenText(token.text)),
    el("p", { text: facts.join(" · ") }),
    el("p", { class: "bytes" }, "bytes ", el("code", { text: token.bytes.replace(/..(?=.)/g, "$& ") || "none" })),
    el("p", { class: "copies" },
      text === null ? null : copyButton("Copy text", text, "the token's exact text"),
      copyButton("Copy hex", `hex:${token.bytes}`, "the token's bytes, as commands and the search accept them"),
      el("button", { type: "button", text: "Add to set", onclick: () => add([token.id]) }),
      nearest.length
        ? el("button", { type: "button", text: "Add all to set", onclick: () => add([token.id, ...nearest]) })
        : null),
    neighborHead(),
    answer.neighbors.length ? neighborList(answer.neighbors) : el("p", { text: whyNone(token) }),
    answer.exact ? null : el("p", { class: "hint", text: "The candidates are approximate: a nearer token may be missing." }),
    copyRow(() => asCurl(`${bankPath(bank)}/nearest`, query),
      () => asPython(bank, `for neighbor in bank.nearest(${token.id}, k=${query.k}):`,
        "    print(f\"{neighbor.cost:.4f}  {neighbor.id:>6}  {neighbor.text}\")")),
  ].filter(Boolean);
}

function add(ids) {
  const isFull = addToSet(ids);
  announce(isFull ? `The set is full: it has ${state.set.length} tokens` : `The set has ${state.set.length} tokens`);
}

function neighborHead() {
  const choice = el("select", { onchange: (event) => change({ k: event.target.value }) },
    ...[...new Set([...COUNTS, Number(state.k)])].sort((a, b) => a - b).map((count) =>
      el("option", { value: count, text: count, selected: String(count) === state.k })));
  return el("p", { class: "row" }, el("label", {}, "Nearest ", choice), el("span", { class: "hint", text: "by cost; click a token to go to it" }));
}

function neighborList(neighbors) {
  const most = Math.max(...neighbors.map((neighbor) => neighbor.cost), 1e-6);
  const list = el("ol", { class: "neighbors" }, ...neighbors.map((neighbor) => el("li", {},
    el("button", { type: "button", onclick: () => walk(neighbor.id) },
      el("span", { class: "bar", style: { width: `${(100 * neighbor.cost) / most}%` } }),
      el("span", { class: "cost", text: cost(neighbor.cost) }), tokenText(neighbor.text)))));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) { event.preventDefault(); next.focus(); }
  });
  return list;
}

const whyNone = (token) => token.has_vector
  ? "The bank has no other token with a vector."
  : `This token has no vector (${token.status}): it costs 1 to every other token.`;

function exactText(hex) {
  const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  try {
    return bytes.length ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) : null;
  } catch {
    return null;
  }
}
