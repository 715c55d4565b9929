// The panel with the chosen token's neighbors in two banks, side by side.

import { base, get } from "./api.js";
import { asCurl, copyRow } from "./copying.js";
import { byId, cost, el, latest, tokenText } from "./dom.js";
import { change, onChange, state, walk } from "./state.js";

export function startCompare(banks) {
  const panel = byId("panel-compare");
  const body = el("div", {});
  const run = latest((box) => body.replaceChildren(box));
  const choice = el("select", { onchange: (event) => change({ other: event.target.value }, { step: true }) });

  const draw = async () => {
    if (state.tab !== "compare" || !state.bank) return;
    const others = banks().filter(({ reference }) => reference !== state.bank);
    choice.replaceChildren(el("option", { value: "", text: others.length ? "choose a bank" : "no other bank" }),
      ...others.map(({ reference, label }) => el("option", { value: reference, text: label, selected: reference === state.other })));
    if (state.other && state.other !== state.bank && !others.some(({ reference }) => reference === state.other)) {
      choice.append(el("option", { value: state.other, text: state.other, selected: true }));
    }
    if (!panel.contains(choice)) panel.replaceChildren(el("p", { class: "row" }, el("label", {}, "Compare with ", choice)), body);
    if (!state.other || state.other === state.bank || state.token === "") {
      await run(async () => {});
      const missing = !others.length ? "The service has no other bank."
        : state.token === "" ? "Choose a token to compare its neighbors." : "Choose a second bank.";
      body.replaceChildren(el("p", { class: "hint", text: missing }));
      return;
    }
    const query = { a: state.bank, b: state.other, token_id: state.token, k: state.k };
    const answer = await run((signal) => get("/v1/compare", query, signal));
    if (answer) body.replaceChildren(...comparison(answer, query));
  };

  onChange((changed) => { if (["bank", "other", "tab", "token", "k"].some((name) => changed.has(name))) draw(); });
  draw();
}

function comparison(answer, query) {
  const { a, b, same_tokenizer: isSame } = answer;
  const name = (neighbor) => (isSame ? neighbor.id : neighbor.text);
  const shared = new Set(a.neighbors.map(name).filter((one) => b.neighbors.some((other) => name(other) === one)));
  const side = (one, go) => el("section", { "aria-label": `Neighbors in ${one.bank}@${one.id}` },
    el("h3", {}, `${one.bank}@${one.id.slice(0, 6)}: `, tokenText(one.token.text)),
    one.neighbors.length ? el("ol", { class: "neighbors" }, ...one.neighbors.map((neighbor) => el("li", {
      class: shared.has(name(neighbor)) ? "shared" : undefined,
    }, el("button", { type: "button", onclick: () => go(neighbor) },
      el("span", { class: "cost", text: cost(neighbor.cost) }), tokenText(neighbor.text),
      shared.has(name(neighbor)) ? el("span", { class: "both", text: "in both" }) : null))))
      : el("p", { text: "This token has no vector in this bank." }));
  const intoOther = (neighbor) => change({ bank: state.other, other: state.bank, token: String(neighbor.id), trail: [], set: [] }, { step: true });
  return [
    el("p", {}, "Overlap ", el("strong", { text: answer.overlap.toFixed(2) }), ", rank-biased overlap ",
      el("strong", { text: answer.rank_biased_overlap.toFixed(2) }), " (from 0, nothing in common, to 1)"),
    isSame ? null : el("p", { class: "hint", text: "The banks have different tokenizers: tokens are matched by their bytes." }),
    el("div", { class: "sides" }, side(a, ({ id }) => walk(id)), side(b, isSame ? ({ id }) => walk(id) : intoOther)),
    copyRow(() => asCurl("/v1/compare", query), () => [
      "from costbank import open_bank", "",
      `for reference in (${JSON.stringify(query.a)}, ${JSON.stringify(query.b)}):`,
      `    bank = open_bank(${JSON.stringify(`${base}/v1/banks/`)} + reference)`,
      `    token = ${isSame ? query.token_id : `{${JSON.stringify(query.a)}: ${query.token_id}, ${JSON.stringify(query.b)}: ${b.token.id}}[reference]`}`,
      `    print(reference, [neighbor.text for neighbor in bank.nearest(token, k=${query.k})])`, ""].join("\n")),
  ].filter(Boolean);
}
