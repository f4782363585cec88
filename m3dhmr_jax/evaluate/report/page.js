// Draws every chart of the page in the page's own colours, light or dark.
"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A copy in which every "--name" is replaced by that colour of page.css.
function coloured(value) {
  if (typeof value === "string") return value.startsWith("--") ? variable(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
}

function axis(own) {
  const lines = { gridcolor: "--line", zerolinecolor: "--line", linecolor: "--line", tickcolor: "--line" };
  return { ...lines, color: "--soft", automargin: true, fixedrange: true, ...own, title: { standoff: 10, font: { size: 12 }, ...own?.title } };
}

function layout(own) {
  return coloured({
    font: { family: "system-ui, sans-serif", size: 12, color: "--soft" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 46, r: 8, t: 10, b: 40 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: "--card", bordercolor: "--line", font: { color: "--ink" } },
    legend: { orientation: "h", x: 0, y: 1.03, yanchor: "bottom", font: { color: "--ink" } },
    ...own,
    xaxis: axis(own.xaxis), yaxis: axis(own.yaxis),
  });
}

function chosen() {
  return document.querySelector("input[name=surface]:checked").value;
}

function draw(figure) {
  const { data, layout: own, choices } = charts[figure.dataset.chart];
  if (choices) Object.assign(data[0], choices[chosen()]);
  return Plotly.react(figure, coloured(data), layout(own), { responsive: true, displayModeBar: false });
}

const figures = [...document.querySelectorAll(".chart")];
const drawAll = () => Promise.all(figures.map(draw)).then(() => document.body.classList.add("drawn"));
drawAll();
dark.addEventListener("change", drawAll);
for (const input of document.querySelectorAll("input[name=surface]")) {
  input.addEventListener("change", () => {
    const values = charts.surface.choices[chosen()];
    const figure = figures.find((each) => each.dataset.chart === "surface");
    Plotly.restyle(figure, { ...values, intensity: [values.intensity] });
  });
}
