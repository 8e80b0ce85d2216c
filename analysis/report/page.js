"use strict";
// Draws the charts one after another, so that the page can be read while they are drawn.  The legend of a chart shows
// and hides its series; the list of runs above a block of charts highlights one run in all of them.

const QUIET = 0.12; // opacity of the runs that are not selected
const touch = matchMedia("(pointer: coarse)").matches;

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  if (touch) layout.dragmode = false; // a finger on a chart scrolls the page
  return Plotly.newPlot(plot, data, layout, { responsive: true, displayModeBar: false });
}

function listen(figure) {
  const plot = figure.querySelector(".plot");
  const buttons = [...figure.querySelectorAll(".key button")];
  const show = (shown) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", shown[i]));
    const hidden = new Set(buttons.filter((_, i) => !shown[i]).map((button) => button.dataset.name));
    Plotly.restyle(plot, { visible: plot.data.map((trace) => !hidden.has(trace.legendgroup)) });
  };
  buttons.forEach((button, chosen) => {
    button.addEventListener("click", () =>
      show(buttons.map((each, i) => (each.getAttribute("aria-pressed") === "true") !== (i === chosen))));
    button.addEventListener("dblclick", () => {
      const lone = buttons.every((each, i) => (each.getAttribute("aria-pressed") === "true") === (i === chosen));
      show(buttons.map((_, i) => lone || i === chosen));
    });
  });
}

function pick(block, run) {
  for (const plot of block.querySelectorAll(".plot")) {
    if (!plot.data) continue;
    const chosen = plot.data.map((trace) => trace.meta === run);
    Plotly.restyle(plot, {
      opacity: chosen.map((is) => (!run ? 0.8 : is ? 1 : QUIET)),
      "line.width": chosen.map((is) => (run && is ? 3 : 1.4)),
    });
  }
}

async function start() {
  for (const select of document.querySelectorAll("select[data-runs]")) {
    select.addEventListener("change", () => pick(select.closest("section"), select.value));
  }
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    await draw(figure);
    listen(figure);
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.body.dataset.drawn = document.querySelectorAll(".plot .main-svg").length ? "all" : "none";
}

if (matchMedia("(max-width: 72rem)").matches) document.querySelector("nav details").open = false;
start();
