// The panel with the costs of a set of tokens to each other.

import { bankPath, get } from "./api.js";
import { asCurl, asPython, copyRow } from "./copying.js";
import { css, scaled, textOn } from "./colors.js";
import { byId, cost, el, latest, tokenText } from "./dom.js";
import { textOf } from "./card.js";
import { addToSet, change, onChange, state, walk } from "./state.js";

export function startHeat() {
  const panel = byId("panel-heat");
  const run = latest((box) => panel.replaceChildren(box));

  const add = el("button", { type: "button", text: "Add the chosen token", onclick: () => addToSet([Number(state.token)]) });
  const showAdd = () => { add.hidden = state.token === "" || state.set.includes(Number(state.token)); };

  const draw = async () => {
    byId("tab-heat").textContent = state.set.length ? `Costs of a set (${state.set.length})` : "Costs of a set";
    showAdd();
    if (state.tab !== "heat" || !state.bank) return;
    const ids = state.set, bank = state.bank;
    if (!ids.length) {
      await run(async () => {});
      panel.replaceChildren(el("p", { class: "hint", text: "Add tokens with “Add to set” or “Add all to set” on a token's card, to see what each costs where another is right." }));
      return;
    }
    const query = { rows: ids.join(","), cols: ids.join(",") };
    const drawn = await run(async (signal) => {
      const [{ costs }, ...texts] = await Promise.all([
        get(`${bankPath(bank)}/costs`, query, signal), ...ids.map((id) => textOf(id, signal))]);
      return table(ids, texts, costs);
    });
    if (!drawn) return;
    panel.replaceChildren(
      el("p", { class: "row" },
        add,
        el("button", { type: "button", text: "Sort by similarity", onclick: () => change({ set: drawn.sorted }, { step: true }) }),
        el("button", { type: "button", text: "Remove all", onclick: () => change({ set: [] }, { step: true }) })),
      drawn.element,
      el("p", { class: "hint", text: "Light cells are cheap mistakes. Point at a cell for its cost with four digits." }),
      copyRow(() => asCurl(`${bankPath(bank)}/costs`, query),
        () => asPython(bank, `ids = [${ids.join(", ")}]`, "print(bank.cost_matrix(ids, ids))")));
  };

  onChange((changed) => {
    if (["bank", "set", "tab"].some((name) => changed.has(name))) draw();
    else showAdd();
  });
  draw();
}

function table(ids, texts, costs) {
  const others = costs.flatMap((row, i) => row.filter((_, j) => j !== i));
  const low = Math.min(...others), high = Math.max(...others);
  const share = (value) => (high > low ? 1 - (value - low) / (high - low) : 0.5);
  const head = el("tr", {}, el("td", {}), ...texts.map((text) => el("th", { scope: "col", class: "turned" }, el("span", {}, tokenText(text)))));
  const rows = ids.map((id, i) => el("tr", {},
    el("th", { scope: "row" },
      el("button", { type: "button", class: "plain", onclick: () => walk(id) }, tokenText(texts[i])),
      el("button", {
        type: "button", class: "plain remove", text: "×", "aria-label": `Remove ${texts[i]}`,
        onclick: () => change({ set: state.set.filter((other) => other !== id) }, { step: true }),
      })),
    ...ids.map((_, j) => {
      if (i === j) return el("td", { class: "same", text: "0" });
      const color = scaled(share(costs[i][j]));
      return el("td", {
        title: `${texts[i]} and ${texts[j]}: ${cost(costs[i][j])}`, text: costs[i][j].toFixed(2),
        style: { background: css(color), color: textOn(color) },
      });
    })));
  return {
    element: el("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": "Costs of the set" },
      el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, ...rows))),
    sorted: chain(ids, costs),
  };
}

// From the first token on, each time the nearest of the remaining ones.
function chain(ids, costs) {
  const rest = new Set(ids.keys()), order = [0];
  rest.delete(0);
  while (rest.size) {
    const last = order.at(-1);
    const next = [...rest].reduce((best, i) => (costs[last][i] < costs[last][best] ? i : best));
    order.push(next);
    rest.delete(next);
  }
  return order.map((i) => ids[i]);
}
