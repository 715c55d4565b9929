// The page: which bank, which token, which view.

import { bankPath, get, setKey, whenKeyNeeded } from "./api.js";
import { startCard } from "./card.js";
import { startCompare } from "./compare.js";
import { byId, el, latest, number, problemBox } from "./dom.js";
import { startHeat } from "./heat.js";
import { startMap } from "./map.js";
import { startSearch } from "./search.js";
import { change, onChange, state } from "./state.js";
import { startTargets } from "./targets.js";

const TABS = ["map", "heat", "compare", "targets"];
const runBank = latest((box) => byId("bank-facts").replaceChildren(box));
const FULL = /@[0-9a-f]{16}$/;
let banks = [];

async function start() {
  const choice = byId("bank");
  choice.addEventListener("change", () => change({ bank: choice.value, token: "", trail: [], set: [] }, { step: true }));
  onChange((changed) => { if (changed.has("bank")) showBank(); });
  startTabs();
  startSearch();
  try {
    const listed = await get("/v1/banks");
    banks = listed.filter((bank) => !bank.problem).map((bank) => ({
      reference: `${bank.name}@${bank.id}`, latest: bank.latest, bank,
      label: `${bank.name}@${bank.id.slice(0, 6)} (${number(bank.vocab)} × ${number(bank.dim)}${bank.latest ? ", latest" : ""})`,
    }));
    choice.replaceChildren(...banks.map(({ reference, label }) => el("option", { value: reference, text: label })),
      ...listed.filter((bank) => bank.problem).map((bank) =>
        el("option", { disabled: true, text: `${bank.name}@${bank.id.slice(0, 6)}: ${bank.problem}` })));
    if (!banks.length && !state.bank) {
      const store = el("p", { class: "problem", role: "status", text: "The service has no banks yet. Build one with `costbank build`, then load this page again." });
      byId("card").replaceChildren(store);
      return;
    }
    await pinBank();
  } catch (error) {
    byId("card").replaceChildren(problemBox(error));
    choice.selectedIndex = -1; // so that choosing any bank is a change
    onChange((changed) => { if (changed.has("bank")) location.reload(); });
    return;
  }
  await showBank();
  startCard();
  startMap();
  startHeat();
  startCompare(() => banks);
  startTargets();
}

// A bare name in a link becomes the name with the id, so that what people see does not change under them.
async function pinBank() {
  if (banks.some(({ reference }) => reference === state.bank)) return;
  if (state.bank) {
    const { name, id } = await get(bankPath(state.bank));
    change({ bank: `${name}@${id}` });
  } else {
    change({ bank: (banks.find(({ latest }) => latest) ?? banks[0]).reference });
  }
}

async function showBank() {
  const choice = byId("bank");
  if (!FULL.test(state.bank)) {
    await runBank(pinBank);
    return;
  }
  if (![...choice.options].some(({ value }) => value === state.bank)) {
    choice.append(el("option", { value: state.bank, text: state.bank }));
  }
  choice.value = state.bank;
  document.title = `${state.bank.split("@")[0]} · costbank`;
  const bank = await runBank((signal) => get(bankPath(state.bank), {}, signal));
  if (bank) {
    const { neighbors } = bank;
    const quality = !neighbors.k ? "no neighbor table" : neighbors.exact ? `${neighbors.k} exact neighbors per token`
      : `${neighbors.k} neighbors per token, recall ${neighbors.recall.toFixed(4)}`;
    byId("bank-facts").textContent =
      `${bank.source} · ${number(bank.vectors.vocab)} × ${number(bank.vectors.dim)} ${bank.vectors.dtype} · ${quality}`;
  }
}

function startTabs() {
  const show = () => {
    for (const name of TABS) {
      byId(`panel-${name}`).hidden = name !== state.tab;
      byId(`tab-${name}`).setAttribute("aria-selected", name === state.tab);
      byId(`tab-${name}`).tabIndex = name === state.tab ? 0 : -1;
    }
  };
  for (const name of TABS) {
    byId(`tab-${name}`).addEventListener("click", () => change({ tab: name }, { step: true }));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length];
      change({ tab: next });
      byId(`tab-${next}`).focus();
    });
  }
  onChange((changed) => { if (changed.has("tab")) show(); });
  show();
}

whenKeyNeeded(() => { byId("key-form").hidden = false; });
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  location.reload();
});
document.querySelector("h1 a").addEventListener("click", (event) => {
  event.preventDefault();
  change({ token: "", trail: [] }, { step: true });
});
start();
