"use strict";
(() => {
  const { charts, dark } = JSON.parse(document.getElementById("charts").textContent);
  const darkScheme = matchMedia("(prefers-color-scheme: dark)");
  const PRINT_WIDTH = 680; // CSS pixels, about the text width of a page
  let printing = false;

  // A copy of a figure with every color of the light scheme replaced by the dark one.
  const darkened = (value) => {
    if (typeof value === "string") return Object.hasOwn(dark, value) ? dark[value] : value;
    if (Array.isArray(value)) return value.map(darkened);
    if (value === null || typeof value !== "object") return value;
    // Texts of tokens are not colors, and may be many.
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, key === "text" ? inner : darkened(inner)]));
  };

  const draw = (key) => {
    const { figure, zooms } = charts[key];
    const { data, layout } = darkScheme.matches && !printing ? darkened(figure) : figure;
    const size = printing ? { width: PRINT_WIDTH } : { autosize: true };
    // Buttons are listed, because the default ones offer to upload the chart.
    const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
    const config = { displaylogo: false, displayModeBar: zooms ? "hover" : false, modeBarButtons: buttons, responsive: true };
    // Plotly writes into what it is given, so it gets a copy.
    return Plotly.react(key, structuredClone(data), { ...structuredClone(layout), ...size }, config);
  };

  const drawn = new Set();
  const drawAgain = () => drawn.forEach(draw);
  // Charts are drawn when they come near the window, so that the page opens quickly.
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || drawn.has(target.id)) continue;
      drawn.add(target.id);
      draw(target.id);
    }
  }, { rootMargin: "800px" });
  const setPrinting = (value) => {
    if (value === printing) return;
    printing = value;
    if (printing) {
      Object.keys(charts).forEach((key) => drawn.add(key));
      document.querySelectorAll("details").forEach((one) => { one.open = true; });
    }
    drawAgain();
  };

  for (const key of Object.keys(charts)) observer.observe(document.getElementById(key));
  darkScheme.addEventListener("change", drawAgain);
  matchMedia("print").addEventListener("change", (event) => setPrinting(event.matches));
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
})();
