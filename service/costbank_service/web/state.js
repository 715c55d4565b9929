// The state of the page, which is all in the fragment of its URL: a link shows others the same view.

const LISTS = ["trail", "set"];
const DEFAULTS = {
  bank: "", token: "", k: "10", tab: "map", other: "", set: [], text: "", color: "status", match: "prefix", trail: [],
};
const CHOICES = {
  tab: ["map", "heat", "compare", "targets"], color: ["status", "count", "cost"], match: ["prefix", "contains"],
};
const LONGEST_TRAIL = 12;
const LARGEST_SET = 40;
const listeners = [];

export const state = read();

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const values = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = given.get(name);
    if (value === null) continue;
    values[name] = LISTS.includes(name) ? value.split(",").filter((id) => /^\d+$/.test(id)).map(Number) : value;
  }
  values.set = values.set.slice(0, LARGEST_SET);
  values.trail = values.trail.slice(-LONGEST_TRAIL);
  for (const [name, allowed] of Object.entries(CHOICES)) {
    if (!allowed.includes(values[name])) values[name] = DEFAULTS[name];
  }
  if (!/^\d*$/.test(values.token)) values.token = "";
  if (!/^[1-9]\d{0,3}$/.test(values.k)) values.k = DEFAULTS.k;
  return values;
}

function fragment() {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const text = Array.isArray(value) ? value.join(",") : value;
    if (text !== "" && text !== String(DEFAULTS[name])) given.set(name, text);
  }
  return `#${given.toString().replaceAll("%2C", ",").replaceAll("%40", "@")}`;
}

export const onChange = (listener) => listeners.push(listener);

// Change the state; a step that people may want to go back from has its own entry in the browser's history.
export function change(values, { step = false } = {}) {
  const before = { ...state };
  Object.assign(state, values);
  if (fragment() === location.hash || (fragment() === "#" && !location.hash)) return;
  history[step ? "pushState" : "replaceState"](null, "", fragment());
  notify(before);
}

export function walk(id) {
  const trail = [...state.trail.filter((other) => other !== id), id].slice(-LONGEST_TRAIL);
  change({ token: String(id), trail }, { step: true });
}

// Returns whether the set was too full for all of them.
export function addToSet(ids) {
  const wanted = [...new Set([...state.set, ...ids])];
  change({ set: wanted.slice(0, LARGEST_SET) }, { step: true });
  return wanted.length > LARGEST_SET;
}

function notify(before) {
  const changed = new Set(Object.keys(state).filter((name) => String(state[name]) !== String(before[name])));
  if (changed.size) for (const listener of listeners) listener(changed);
}

function moved() {
  const before = { ...state };
  Object.assign(state, read());
  notify(before);
}
addEventListener("popstate", moved);
addEventListener("hashchange", moved);
