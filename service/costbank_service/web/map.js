// The panel with the map of all tokens. Its places come from the bank; the nearest tokens are marked by their costs.

import { bankPath, get, getArray, getTokenColumns, key, url } from "./api.js";
import { onNeighbors, textOf } from "./card.js";
import { asCurl, copyRow } from "./copying.js";
import { css, scaled, STATUSES } from "./colors.js";
import { busy, byId, cost, el, latest, number, problemBox, tokenText } from "./dom.js";
import { Points } from "./points.js";
import { change, onChange, state, walk } from "./state.js";

const COLORINGS = [["status", "status"], ["count", "count"], ["cost", "cost to the chosen token"]];
const LISTED = 20;
const KEY_STEP = 40;
const FAINT = [150, 150, 150];

export function startMap() {
  const panel = byId("panel-map");
  const run = latest((box) => panel.replaceChildren(box));
  const runColors = latest((box) => legend.replaceChildren(box));
  const runHover = latest(() => {});
  const runList = latest((box) => list.replaceChildren(box));

  const canvas = el("canvas", {
    tabindex: 0, role: "application",
    "aria-label": "Map of the tokens. Arrow keys move it, + and − zoom, 0 shows all. The lists of tokens say the same.",
  });
  const marks = el("canvas", { class: "marks", "aria-hidden": "true" });
  const tip = el("div", { class: "tip", hidden: true });
  const legend = el("p", { class: "legend" });
  const list = el("div", {});
  const coloring = el("select", { onchange: (event) => change({ color: event.target.value }) },
    ...COLORINGS.map(([value, text]) => el("option", { value, text })));
  const zoomButtons = [["+", "Zoom in", 1.6], ["−", "Zoom out", 1 / 1.6]].map(([text, label, factor]) =>
    el("button", { type: "button", text, "aria-label": label, onclick: () => zoomMiddle(factor) }));
  const reset = el("button", { type: "button", text: "Show all", onclick: () => points.reset() });
  const frame = el("div", { class: "map" }, canvas, marks, tip);

  let points = null, loaded = "", columns = null, neighbors = [], hasPlaces = false, hovered = -1;

  const zoomMiddle = (factor) => points.zoomAt(canvas.clientWidth / 2, canvas.clientHeight / 2, factor);

  const load = async () => {
    if (state.tab !== "map" || !state.bank) return;
    if (loaded === state.bank) {
      await run(async () => {}); // another bank's map may be on its way
      recolor();
      mark();
      return;
    }
    const bank = state.bank;
    forget();
    const found = await busy(panel, "Loading the map…", run(
      async (signal) => Promise.all([getArray(`${bankPath(bank)}/map`, {}, signal), getTokenColumns(bank, signal)]),
      (error) => {
        panel.replaceChildren(error.code === "no-map" ? withoutMap(bank) : problemBox(error));
      }));
    if (!found) return;
    columns = found[1];
    if (!points && !openPoints()) return withoutWebGL();
    loaded = bank;
    hasPlaces = true;
    panel.replaceChildren(
      el("p", { class: "row" }, el("label", {}, "Color by ", coloring), ...zoomButtons, reset), legend, frame,
      el("p", { class: "hint", text: "Drag to move, scroll to zoom, click a point to choose its token. Near tokens are drawn near each other, but distances on a map are not costs." }),
      mapCopies(bank));
    points.setPlaces(found[0]);
    recolor();
    mark();
  };

  // Nothing of a map is shown, pointed at or colored until the next one is there.
  const forget = () => {
    loaded = "";
    hasPlaces = false;
    hovered = -1;
    tip.hidden = true;
    for (const other of [runColors, runHover, runList]) other(async () => {});
    list.replaceChildren();
    panel.replaceChildren();
  };

  const openPoints = () => {
    try {
      points = new Points(canvas);
      points.afterDraw = drawMarks;
      listen();
      return true;
    } catch {
      return false;
    }
  };

  const withoutWebGL = () => {
    panel.replaceChildren(el("p", {
      class: "problem", role: "status",
      text: "This browser has no WebGL, so the map cannot be drawn. The nearest tokens are in the list beside this panel.",
    }), mapCopies(state.bank));
  };

  const recolor = async () => {
    coloring.value = state.color;
    if (!isCurrent()) return;
    const bank = state.bank;
    await runColors(async (signal) => {
      if (state.color === "cost" && state.token !== "") {
        const costs = await getArray(`${bankPath(bank)}/costs`, { rows: state.token }, signal);
        const sorted = Float32Array.from(costs).sort();
        const [low, high] = [sorted[Math.min(1, sorted.length - 1)], sorted[Math.floor(0.98 * (sorted.length - 1))]];
        const share = (value) => 1 - (value - low) / Math.max(high - low, 1e-6);
        points.setColors(colorsOf((i) => scaled(share(costs[i])), (i) => (share(costs[i]) > 0.5 ? 235 : 90)));
        legend.replaceChildren(ramp(), ` from ${cost(high)} or more to ${cost(low)}`);
      } else if (state.color === "count") {
        const most = Math.log1p(columns.counts.reduce((a, b) => Math.max(a, b), 0));
        const known = (i) => columns.counts[i] >= 0;
        points.setColors(colorsOf((i) => (known(i) ? scaled(Math.log1p(columns.counts[i]) / (most || 1)) : FAINT), () => 200));
        legend.replaceChildren(...(columns.counts.some((count) => count >= 0)
          ? [ramp(), ` from 0 to ${number(Math.round(Math.expm1(most)))} occurrences, by their logarithm`]
          : ["This bank has no counts."]));
      } else {
        points.setColors(colorsOf((i) => STATUSES[columns.status[i]][1], () => 200));
        const present = STATUSES.filter((_, status) => columns.status.some((other, i) => other === status && points.has(i)));
        legend.replaceChildren(...present.flatMap(([name, color]) =>
          [el("span", { class: "swatch", style: { background: css(color) } }), ` ${name} `]));
        if (state.color === "cost") legend.append(" Choose a token to see the costs to it.");
      }
    });
  };

  const isCurrent = () => hasPlaces && loaded === state.bank && state.tab === "map";

  const colorsOf = (color, alpha) => {
    const colors = new Uint8Array(4 * columns.status.length);
    for (let i = 0; i < columns.status.length; i++) {
      colors.set(color(i), 4 * i);
      colors[4 * i + 3] = alpha(i);
    }
    return colors;
  };

  const mark = () => {
    if (!isCurrent()) return;
    const chosen = state.token === "" ? -1 : Number(state.token);
    if (points.has(chosen)) points.show(chosen);
    else points.draw();
    drawList(chosen);
  };

  // The places as a list, for whoever cannot see the map; filled when it is opened.
  const drawList = (chosen) => {
    if (!points.has(chosen)) { list.replaceChildren(); return; }
    const names = el("ol", { class: "flow" });
    const fill = () => runList(async (signal) => {
      const near = points.nearestTo(chosen, LISTED);
      const texts = await Promise.all(near.map((id) => textOf(id, signal)));
      names.replaceChildren(...near.map((id, position) => el("li", {},
        el("button", { type: "button", class: "plain", onclick: () => walk(id) }, tokenText(texts[position])))));
    });
    const wasOpen = list.querySelector("details")?.open ?? false;
    const details = el("details", { open: wasOpen, ontoggle: () => { if (details.open) fill(); } },
      el("summary", { text: "The tokens that are nearest on the map" }), names);
    list.replaceChildren(details);
    if (!list.isConnected) panel.append(list);
  };

  const drawMarks = () => {
    const ratio = devicePixelRatio || 1, context = marks.getContext("2d");
    marks.width = Math.round(canvas.clientWidth * ratio);
    marks.height = Math.round(canvas.clientHeight * ratio);
    context.scale(ratio, ratio);
    const style = getComputedStyle(panel), chosen = state.token === "" ? -1 : Number(state.token);
    context.font = `13px ${style.fontFamily}`;
    context.strokeStyle = context.fillStyle = style.color;
    const ring = (i, radius, width) => {
      const [x, y] = points.pixelOf(i);
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.stroke();
      return [x, y];
    };
    const boxes = [];
    const label = (text, x, y, bold) => {
      context.font = `${bold ? "bold " : ""}13px ${style.fontFamily}`;
      const width = context.measureText(text).width, box = [x + 7, y - 9, x + 9 + width, y + 7];
      if (boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) return;
      boxes.push(box);
      context.lineWidth = 3;
      context.strokeStyle = style.getPropertyValue("--ground");
      context.strokeText(text, x + 8, y + 4);
      context.strokeStyle = style.color;
      context.fillText(text, x + 8, y + 4);
    };
    if (points.has(chosen)) {
      const [x, y] = ring(chosen, 7, 3);
      if (neighbors.length) label(neighbors.text, x, y, true);
    }
    for (const neighbor of neighbors) {
      if (!points.has(neighbor.id)) continue;
      const [x, y] = ring(neighbor.id, 5, 1.5);
      label(neighbor.text, x, y, false);
    }
    if (points.has(hovered)) ring(hovered, 6, 2);
  };

  const hover = (i, x, y) => {
    if (i === hovered) return;
    hovered = i;
    points.draw();
    canvas.classList.toggle("pointing", i >= 0);
    tip.hidden = true;
    if (i < 0) { runHover(async () => {}); return; }
    runHover(async (signal) => {
      const text = await textOf(i, signal);
      const count = columns.counts[i] >= 0 ? ` · count ${number(columns.counts[i])}` : "";
      tip.replaceChildren(tokenText(text), el("div", { class: "hint", text: `id ${i} · ${STATUSES[columns.status[i]][0]}${count}` }));
      tip.hidden = false;
      const right = x > canvas.clientWidth / 2;
      Object.assign(tip.style, {
        top: `${y + 12}px`, left: right ? "auto" : `${x + 12}px`, right: right ? `${canvas.clientWidth - x + 12}px` : "auto",
      });
    });
  };

  const listen = () => {
    const pointers = new Map();
    let moved = 0;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      points.zoomAt(...at(event), Math.exp(-event.deltaY * 0.0015));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event), before = pointers.get(event.pointerId);
      if (!before) { hover(points.at(x, y), x, y); return; }
      if (pointers.size === 2) {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
        points.zoomAt((x + other[0]) / 2, (y + other[1]) / 2, far([x, y], other) / Math.max(1, far(before, other)));
      }
      points.pan((x - before[0]) / pointers.size, (y - before[1]) / pointers.size);
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      pointers.set(event.pointerId, [x, y]);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!pointers.delete(event.pointerId)) return;
      const i = moved < 5 ? points.at(...at(event)) : -1;
      if (i >= 0) walk(i);
    });
    canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [KEY_STEP, 0], ArrowRight: [-KEY_STEP, 0], ArrowUp: [0, KEY_STEP], ArrowDown: [0, -KEY_STEP] };
      if (moves[event.key]) points.pan(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") zoomMiddle(1.6);
      else if (event.key === "-") zoomMiddle(1 / 1.6);
      else if (event.key === "0") points.reset();
      else return;
      event.preventDefault();
    });
  };

  onNeighbors((answer) => {
    neighbors = answer.neighbors;
    neighbors.text = answer.token.text;
    mark();
    if (state.color === "cost") recolor();
  });
  onChange((changed) => {
    if (changed.has("bank")) { neighbors = []; forget(); }
    if (changed.has("bank") || changed.has("tab")) load();
    else if (changed.has("color")) recolor();
    else if (changed.has("token") && state.token === "") { neighbors = []; mark(); recolor(); }
  });
  load();
}

const ramp = () => el("span", { class: "ramp", style: {
  background: `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((share) => css(scaled(share))).join(", ")})`,
} });

const mapCopies = (bank) => copyRow(() => asCurl(`${bankPath(bank)}/map`, {}, "application/x-npy"),
  () => ["import io", "import urllib.request", "", "import numpy as np", "",
    ...(key() ? ["import os", ""] : []),
    `request = urllib.request.Request("${url(`${bankPath(bank)}/map`)}", headers={"Accept": "application/x-npy"})`,
    ...(key() ? ['request.add_header("Authorization", f"Bearer {os.environ[\'COSTBANK_API_KEY\']}")'] : []),
    "xy = np.load(io.BytesIO(urllib.request.urlopen(request).read()))  # [vocab, 2]", ""].join("\n"));

function withoutMap(bank) {
  const advice = el("p", { class: "hint" });
  get(bankPath(bank)).then(({ neighbors }) => advice.append(...(neighbors.k
    ? ["Make one with ", el("code", { text: `costbank layout ${bank}` }), ", then load this page again."]
    : ["A map is made from the neighbor table, and this bank has none: build it without ",
      el("code", { text: "--for-training" }), "."])), () => {});
  return el("div", {}, el("p", { role: "status", text: "This bank has no map." }), advice);
}
