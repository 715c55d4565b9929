// The panel "What a label costs": the softened target of each token of a typed text, as the loss sees it.

import { bankPath, get } from "./api.js";
import { asCurl, asPython, copyRow } from "./copying.js";
import { busy, byId, cost, el, latest, percent, tokenText } from "./dom.js";
import { change, onChange, state, walk } from "./state.js";

const PAUSE_MS = 300;
const OTHERS = 8;
const MOST_WAITS = 5;
const WAIT_MS = 1_500;

export function startTargets() {
  const panel = byId("panel-targets");
  const result = el("div", {});
  const run = latest((box) => result.replaceChildren(box));
  let timer = 0;
  const input = el("input", {
    type: "text", id: "label-text", spellcheck: false, autocomplete: "off",
    placeholder: "a few words", oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => change({ text: input.value }), PAUSE_MS);
    },
  });
  const form = el("div", {}, el("p", { class: "row" }, el("label", { class: "wide" }, "Text ", input)));

  const draw = async () => {
    if (state.tab !== "targets" || !state.bank) return;
    if (!panel.contains(form)) panel.replaceChildren(form, result);
    if (document.activeElement !== input) input.value = state.text;
    const bank = state.bank;
    const query = state.text ? { text: state.text, k: OTHERS }
      : state.token !== "" ? { token_ids: state.token, k: OTHERS } : null;
    if (!query) {
      await run(async () => {});
      result.replaceChildren(el("p", { class: "hint", text: "Type a text, or choose a token, to see what the loss makes of each label." }));
      return;
    }
    const answer = await busy(result, "Computing the targets…", run((signal) => patiently(() => get(`${bankPath(bank)}/targets`, query, signal), signal, () =>
      result.replaceChildren(el("p", { role: "status", text: "The service is reading the bank's vectors for the first time…" })))));
    if (answer) result.replaceChildren(...shown(bank, answer, query));
  };

  onChange((changed) => {
    const matters = changed.has("token") && !state.text;
    if (matters || ["bank", "text", "tab"].some((name) => changed.has(name))) draw();
  });
  draw();
}

// The first answer for a large bank can take longer than a request may; the service goes on with it meanwhile.
async function patiently(ask, signal, wait) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (error.code !== "timeout" || attempt === MOST_WAITS || signal.aborted) throw error;
      wait();
      await new Promise((done) => setTimeout(done, WAIT_MS));
    }
  }
}

function shown(bank, answer, query) {
  const ids = answer.targets.map(({ token }) => token.id);
  const notes = [`EMOLoss(bank) keeps ${percent(1 - answer.weight)} of each label and gives ${percent(answer.weight)} to other tokens: ` +
    `${answer.loss.replace("_", " ")}, temperature ${answer.temperature.toPrecision(3)}.`];
  if (answer.split === "longest-match") notes.push("The text was split into the longest tokens; the tokenizer may split it in another way.");
  if (answer.unmatched) notes.push(`No token has these bytes of the text: ${answer.unmatched}.`);
  return [
    ...notes.map((text) => el("p", { class: "hint", text })),
    el("ol", { class: "targets" }, ...answer.targets.map(target)),
    copyRow(() => asCurl(`${bankPath(bank)}/targets`, query),
      () => asPython(bank, "", "import torch", "", "from costbank.loss import open_smoothing", "",
        `labels = torch.tensor([${ids.join(", ")}])`, "smoothing = open_smoothing(bank)",
        "shares = torch.exp(-smoothing.rows(labels) / smoothing.temperature) * smoothing.factors",
        "shares[torch.arange(len(labels)), labels] = 0",
        "shares[~smoothing.softened[labels]] = 0  # labels that keep their whole share",
        `shares *= ${answer.weight} / shares.sum(dim=1, keepdim=True).clamp_min(1e-30)`, "print(shares.topk(8))")),
  ];
}

function target(entry) {
  const most = Math.max(...entry.others.map(({ share }) => share), 1e-12);
  const spread = entry.softened
    ? `keeps ${percent(entry.label_share)}; the rest goes to about ${Math.round(entry.perplexity)} tokens`
    : "keeps its whole share";
  return el("li", {}, el("p", {}, el("button", { type: "button", class: "plain chosen", onclick: () => walk(entry.token.id) },
    tokenText(entry.token.text)), el("span", { class: "hint", text: ` ${spread}` })),
  entry.others.length ? el("ul", { class: "neighbors" }, ...entry.others.map((other) => el("li", {},
    el("button", { type: "button", onclick: () => walk(other.id) },
      el("span", { class: "bar", style: { width: `${(100 * other.share) / most}%` } }),
      el("span", { class: "cost", text: percent(other.share) }), tokenText(other.text),
      el("span", { class: "hint", text: ` cost ${cost(other.cost)}` }))))) : null);
}
