"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
// Okabe and Ito's colours; meaning is carried by shape and dash as well.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "x", "star"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const OPTIONS = {
  responsive: true, displaylogo: false, showSendToCloud: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d"],
};

function fill(select, names, words = {}) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(words[name] ?? name, name)));
  if (names.includes(before)) select.value = before;
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(more) {
  const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), automargin: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: style("--ground"), plot_bgcolor: style("--ground"),
    font: { color: style("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 70, r: 20, t: 30, b: 50 }, hovermode: "closest",
    legend: { orientation: "h", y: 1.08, x: 0 },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

const number = (value) => value.mean.toFixed(2) + (value.sd === null ? "" : " ± " + value.sd.toFixed(2));
const escape = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

function told(group) {
  const known = Object.keys(data.measures).filter((name) => name in group.numbers);
  return [group.label, ...known.map((name) => `${data.measures[name]}: ${number(group.numbers[name])}`)];
}

// The front -------------------------------------------------------------------------------------
let points = []; // groups in the order of the picture, by size
function drawFront() {
  const cost = at("cost").value, quality = at("quality").value;
  points = data.groups.map((group, i) => i)
    .filter((i) => data.groups[i].numbers[cost] && data.groups[i].numbers[quality])
    .sort((a, b) => data.groups[a].numbers[cost].mean - data.groups[b].numbers[cost].mean);
  const best = data.fronts[`${cost} ${quality}`] ?? [];
  const value = (i, name) => data.groups[i].numbers[name].mean;
  const traces = [
    { x: best.map((i) => value(i, cost)), y: best.map((i) => value(i, quality)), mode: "lines",
      line: { shape: "hv", color: COLOURS[0] }, name: "front", hoverinfo: "skip" },
    { x: points.map((i) => value(i, cost)), y: points.map((i) => value(i, quality)),
      customdata: points, mode: "markers", name: "cells",
      error_y: { type: "data", array: points.map((i) => data.groups[i].numbers[quality].sd ?? 0),
        color: style("--quiet") },
      marker: { size: 12, line: { width: 1, color: style("--text") },
        color: points.map((i) => COLOURS[best.includes(i) ? 0 : 1]),
        symbol: points.map((i) => SHAPES[best.includes(i) ? 0 : 1]) },
      text: points.map((i) => told(data.groups[i]).map(escape).join("<br>")),
      hovertemplate: "%{text}<extra></extra>" },
    ...data.references.filter((r) => cost in r.numbers && quality in r.numbers).map((r, i) => (
      { x: [r.numbers[cost]], y: [r.numbers[quality]], mode: "markers", name: escape(r.name),
        marker: { size: 13, symbol: SHAPES[2 + i], color: COLOURS[2 + i] },
        hovertemplate: escape(r.name) + ": %{y:.2f} at %{x:.1f}<extra></extra>" })),
  ];
  return Plotly.react("front", traces, layout({
    xaxis: { title: { text: data.measures[cost] } }, yaxis: { title: { text: data.measures[quality] } },
  }), OPTIONS);
}

let position = -1;
function step(event) {
  const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (move && points.length) {
    position = (position + move + points.length) % points.length;
    Plotly.Fx.hover("front", [{ curveNumber: 1, pointNumber: position }]);
    at("spoken").textContent = told(data.groups[points[position]]).join(", ");
    event.preventDefault();
  } else if (event.key === "Enter" && position >= 0) {
    open(points[position]);
    event.preventDefault();
  }
}

// Words on the fields of a heat map whose colours begin at the least value, or where they are said
// to. cividis is dark at its lower end; a field without a number shows the ground.
function notes(words, z, least) {
  const known = z.flat().filter((v) => v !== null);
  const low = least ?? Math.min(...known), high = Math.max(...known);
  return words.flatMap((row, i) => row.map((text, j) => ({
    x: j, y: i, text: escape(text), showarrow: false,
    font: { color: z[i][j] === null ? style("--text") : z[i][j] < low + 0.45 * (high - low) ? "#fff" : "#000" },
  })));
}

// Heat maps -------------------------------------------------------------------------------------
function drawMaps() {
  if (!at("maps")) return;
  const quality = at("quality").value;
  const means = data.groups.flatMap((g) => (g.numbers[quality] ? [g.numbers[quality].mean] : []));
  data.maps.forEach((map, m) => {
    const field = at(`map-${m}`);
    const group = (cell) => (cell === null ? null : data.groups[cell]);
    const z = map.fields.map((row) => row.map((c) => group(c)?.numbers[quality]?.mean ?? null));
    const words = map.fields.map((row, i) => row.map((c, j) => {
      const known = group(c)?.numbers[quality];
      return known ? number(known) : map.status[i][j];
    }));
    Plotly.react(field, [{
      type: "heatmap", x: map.columns, y: map.rows, z, customdata: map.fields,
      text: map.fields.map((row) => row.map((c) => (c === null ? "" : told(group(c)).map(escape).join("<br>")))),
      hovertemplate: "%{text}<extra></extra>", colorscale: "Cividis", xgap: 2, ygap: 2,
      zmin: means.length ? Math.min(...means) : 0, zmax: means.length ? Math.max(...means) : 1,
      colorbar: { title: { text: data.measures[quality] ?? "", side: "right" } },
    }], layout({
      annotations: notes(words, z), title: { text: escape(map.title), font: { size: 13 } },
      xaxis: { type: "category", title: { text: "recurrence R" }, showgrid: false },
      yaxis: { type: "category", title: { text: "bottleneck e" }, showgrid: false },
    }), OPTIONS);
  });
}

// Languages -------------------------------------------------------------------------------------
function drawLanguages() {
  const split = at("split").value;
  const measured = data.groups.map((g, i) => i).filter((i) => Object.keys(data.groups[i].pairs).length);
  const columns = [...new Set(measured.flatMap((i) => Object.keys(data.groups[i].pairs)))]
    .filter((name) => name.startsWith(split + " "));
  const short = columns.map((name) => name.slice(split.length + 1));
  const rows = [
    ...data.references.map((r) => ({ name: r.name, group: null, values: columns.map((c) => r.pairs[c] ?? null), sd: () => null })),
    ...measured.map((i) => ({ name: data.groups[i].label, group: i,
      values: columns.map((c) => data.groups[i].pairs[c]?.mean ?? null),
      sd: (c) => data.groups[i].pairs[columns[c]]?.sd ?? null })),
  ].reverse();
  const text = rows.map((row) => row.values.map((v, c) => (v === null ? "" :
    v.toFixed(1) + (row.sd(c) === null ? "" : " ± " + row.sd(c).toFixed(1)))));
  Plotly.react("languages", [{
    type: "heatmap", x: short, y: rows.map((_, i) => i), z: rows.map((row) => row.values), text,
    customdata: rows.map((row) => columns.map(() => row.group)),
    hovertemplate: "%{x}: %{text}<extra></extra>", colorscale: "Cividis", xgap: 1, ygap: 1,
    colorbar: { title: { text: "score ×100", side: "right" } },
  }], layout({
    annotations: notes(text, rows.map((row) => row.values)), xaxis: { type: "category", showgrid: false },
    yaxis: { tickvals: rows.map((_, i) => i), ticktext: rows.map((r) => escape(r.name)), showgrid: false },
  }), OPTIONS);
}

// Curves ----------------------------------------------------------------------------------------
function drawCurves() {
  const stage = at("stage").value;
  const runs = data.curves.filter((run) => run.stage === stage);
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.values)))].sort();
  fill(at("value"), names.sort((a, b) => (b === "dev/loss") - (a === "dev/loss")));
  const value = at("value").value;
  const owner = (id) => data.groups.filter((g) => g.cells.some((c) => c.links.includes(id)));
  const traces = runs.filter((run) => value in run.values).map((run, i) => {
    const groups = owner(run.run);
    const [cell] = groups[0].cells.filter((c) => c.links.includes(run.run));
    const seed = groups[0].cells.length > 1 ? ` seed=${cell.seed}` : "";
    const name = groups.length === 1 ? groups[0].label + seed : `${run.run} (${groups.length} cells)`;
    return {
      x: run.values[value].map((p) => p[0]), y: run.values[value].map((p) => p[1]),
      mode: "lines+markers", name: escape(name), customdata: run.values[value].map(() => data.groups.indexOf(groups[0])),
      line: { color: COLOURS[i % COLOURS.length], dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length] },
      marker: { symbol: SHAPES[i % SHAPES.length], size: 6 },
      hovertemplate: "step %{x}: %{y:.4g}<extra>" + escape(name) + "</extra>",
    };
  });
  Plotly.react("curves", traces, layout({
    xaxis: { title: { text: "step" } }, yaxis: { title: { text: value } }, showlegend: traces.length < 13,
    legend: { orientation: "v" },
  }), OPTIONS);
}

// Ratios of layers and domains ------------------------------------------------------------------
function drawRatios() {
  if (!data.ratios.length) return;
  fill(at("ratio-run"), data.ratios.map((r) => r.run), Object.fromEntries(data.ratios.map((r) => [r.run, r.title])));
  const shown = data.ratios.find((r) => r.run === at("ratio-run").value);
  fill(at("ratio-state"), ["mean over layers", ...shown.states]);
  const state = shown.states.indexOf(at("ratio-state").value);
  const z = shown.values[shown.kept];
  const words = z.map((row) => row.map((v) => v.toFixed(2)));
  const domains = shown.domains.map(escape);
  Plotly.react("ratio-map", [{
    type: "heatmap", x: domains, y: shown.states, z, colorscale: "Cividis", zmin: 0, xgap: 1, ygap: 1,
    hovertemplate: "%{x}, %{y}: %{z:.3f}<extra></extra>", colorbar: { title: { text: "ratio", side: "right" } },
  }], layout({
    annotations: z.length * domains.length > 120 ? [] : notes(words, z, 0),
    title: { text: `step ${shown.steps[shown.kept]}`, font: { size: 13 } },
    xaxis: { type: "category", showgrid: false }, yaxis: { type: "category", showgrid: false },
  }), OPTIONS);
  const at_step = (v, j) => (state < 0 ? v.reduce((sum, row) => sum + row[j], 0) / v.length : v[state][j]);
  Plotly.react("ratio-curves", domains.map((name, j) => ({
    x: shown.steps, y: shown.values.map((v) => at_step(v, j)), name, mode: "lines+markers",
    line: { color: COLOURS[j % COLOURS.length], dash: DASHES[Math.floor(j / COLOURS.length) % DASHES.length] },
    marker: { symbol: SHAPES[j % SHAPES.length], size: 6 },
    hovertemplate: "step %{x}: %{y:.3f}<extra>" + name + "</extra>",
  })), layout({
    xaxis: { title: { text: "step" } }, yaxis: { title: { text: "ratio" } }, legend: { orientation: "v" },
    showlegend: domains.length < 17,
  }), OPTIONS);
}

// One cell --------------------------------------------------------------------------------------
function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function open(index, only) {
  const group = data.groups[index];
  at("detail-title").textContent = group.label;
  const body = [element("p", told(group).slice(1).join(" · "))];
  for (const cell of only === undefined ? group.cells : [group.cells[only]]) {
    body.push(element("h3", `${cell.id} (${cell.status})`));
    if (cell.error) body.push(element("p", cell.error));
    for (const [word, text] of [["log", cell.log], ["folder", cell.folder], ["links", cell.links.join(" → ")]]) {
      if (text) body.push(element("p", `${word}: ${text}`));
    }
    if (cell.command) body.push(element("h4", "Command"), element("pre", cell.command));
    if (cell.config) body.push(element("h4", "Configuration"), element("pre", cell.config));
  }
  at("detail-body").replaceChildren(...body);
  at("detail").showModal();
}

// The table -------------------------------------------------------------------------------------
function sortBy(button) {
  const head = button.closest("th"), heads = [...head.parentNode.children];
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const column = heads.indexOf(head), body = at("cells").tBodies[0];
  const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === ""); // empty ones last
    const difference = Number(key(a)) - Number(key(b));
    return (ascending ? 1 : -1) * (Number.isNaN(difference) ? key(a).localeCompare(key(b)) : difference);
  };
  body.append(...[...body.rows].sort(compare));
}

function filter() {
  const words = at("filter").value.toLowerCase().split(/\s+/), status = at("status").value;
  const rows = [...at("cells").tBodies[0].rows];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (status !== "" && row.dataset.status !== status);
  }
  at("shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} cells`;
}

// Colours ---------------------------------------------------------------------------------------
function paint(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").setAttribute("aria-pressed", String(theme === "dark"));
  drawFront(); drawMaps(); drawLanguages(); drawCurves(); drawRatios();
}

paint(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
filter();
for (const id of ["front", "languages", "curves", ...data.maps.map((_, m) => `map-${m}`)]) {
  at(id).on("plotly_click", (event) => {
    const index = event.points[0].customdata;
    if (typeof index === "number" && index >= 0) open(index);
  });
}
at("front").addEventListener("keydown", step);
at("theme").addEventListener("click", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
for (const id of ["cost", "quality"]) at(id).addEventListener("change", () => { position = -1; drawFront(); drawMaps(); });
at("split").addEventListener("change", drawLanguages);
for (const id of ["stage", "value"]) at(id).addEventListener("change", drawCurves);
for (const id of ["ratio-run", "ratio-state"]) at(id)?.addEventListener("change", drawRatios);
at("filter").addEventListener("input", filter);
at("status").addEventListener("change", filter);
at("cells").tHead.addEventListener("click", (event) => event.target.matches("button") && sortBy(event.target));
at("cells").tBodies[0].addEventListener("click", (event) => {
  if (event.target.matches("button.open")) open(Number(event.target.dataset.group), Number(event.target.dataset.position));
});
