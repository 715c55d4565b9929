// The search for tokens: a combobox with a list of matches, as WAI-ARIA describes it.

import { bankPath, get } from "./api.js";
import { byId, el, latest, number, problemBox, tokenText } from "./dom.js";
import { change, onChange, state, walk } from "./state.js";

const PAUSE_MS = 80;
const SHOWN = 50;
const NAMED = /^(id:|hex:|piece:)/;

export function startSearch() {
  const input = byId("query"), list = byId("matches"), status = byId("search-status"), match = byId("match");
  const run = latest((box) => status.replaceChildren(box));
  let matches = [], active = -1, timer = 0;

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  };

  const choose = (token) => {
    close();
    status.textContent = "";
    walk(token.id);
  };

  const activate = (index) => {
    if (!matches.length) return;
    active = (index + matches.length) % matches.length;
    for (const [position, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", position === active);
      if (position === active) option.scrollIntoView({ block: "nearest" });
    }
    input.setAttribute("aria-activedescendant", `match-${active}`);
  };

  const show = (tokens) => {
    matches = tokens;
    active = -1;
    list.replaceChildren(...tokens.map((token, position) => el("li", {
      id: `match-${position}`, role: "option", "aria-selected": false,
      onmousedown: (event) => { event.preventDefault(); choose(token); },
    }, tokenText(token.text), el("span", { class: "hint", text: ` ${token.id}${token.status === "ok" ? "" : `, ${token.status}`}` }))));
    list.hidden = !tokens.length || document.activeElement !== input;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };

  const find = async () => {
    const text = input.value;
    matches = [];
    if (!text || !state.bank) {
      await run(async () => {});
      close();
      status.textContent = "";
      return;
    }
    const found = await run(async (signal) => {
      if (NAMED.test(text)) {
        const { token } = await get(`${bankPath(state.bank)}/nearest`, { token: text, k: 1 }, signal);
        return { total: 1, tokens: [token, ...(token.other ? [token.other] : [])] };
      }
      // A word that starts with the text is the likelier wish, so tokens that begin a word come first.
      const query = { match: match.value, limit: SHOWN };
      const spaced = match.value === "prefix" && !/^[\s▁Ġ]/.test(text);
      const [words, pieces] = await Promise.all([
        spaced ? get(`${bankPath(state.bank)}/tokens`, { ...query, q: ` ${text}` }, signal) : { total: 0, tokens: [] },
        get(`${bankPath(state.bank)}/tokens`, { ...query, q: text.replace(/^[▁Ġ]/, " ") }, signal)]);
      const shorter = (a, b) => a.bytes.length - b.bytes.length || a.id - b.id;
      return {
        total: words.total + pieces.total,
        tokens: [...words.tokens.sort(shorter), ...pieces.tokens.sort(shorter)].slice(0, SHOWN),
      };
    }, (error) => {
      close();
      status.replaceChildren(error.status === 404 ? el("span", { text: `${error.message}; ${error.hint}` }) : problemBox(error));
    });
    if (!found) return;
    show(found.tokens);
    const shown = found.tokens.length < found.total ? `, ${found.tokens.length} shown` : "";
    status.textContent = `${number(found.total)} ${found.total === 1 ? "token" : "tokens"}${shown}`;
  };

  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(find, PAUSE_MS);
  };

  input.addEventListener("input", soon);
  input.addEventListener("focus", () => { if (matches.length && input.value) show(matches); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) show(matches);
      if (list.hidden) return;
      activate(active < 0 && event.key === "ArrowUp" ? -1 : active + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(timer);
      if (active < 0) await find();
      const token = matches[Math.max(active, 0)];
      if (token && input.value) choose(token);
    } else if (event.key === "Escape") {
      close();
    }
  });
  match.value = state.match;
  match.addEventListener("change", () => { change({ match: match.value }); find(); });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      input.focus();
      input.select();
    }
  });
  onChange((changed) => {
    if (changed.has("bank")) { matches = []; close(); find(); }
    if (changed.has("match")) match.value = state.match;
  });
}
