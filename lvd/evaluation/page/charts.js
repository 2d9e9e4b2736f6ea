// The two charts. No text from outside gets into them: plotly would read it as its own markup.
"use strict";

const TICKS = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
const LOWEST = logOdds(0.00005), HIGHEST = logOdds(0.999997);
const QUIET_CHART = { responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: false };
const STROKES = ["solid", "dash", "dot", "dashdot"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function layoutOf(margin) {
  const axis = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    font: { color: colour("text"), size: 12.5, family: getComputedStyle(document.body).fontFamily },
    margin, xaxis: { ...axis }, yaxis: { ...axis }, hovermode: "closest", autosize: true,
  };
}

const shown = (probability) => Math.min(Math.max(logOdds(probability), LOWEST), HIGHEST);

function drawScores(set, rules) {
  const steps = [...Array(set.steps).keys()];
  const layout = layoutOf({ l: 62, r: 14, t: 30, b: 42 });
  layout.xaxis = { ...layout.xaxis, title: { text: "denoising step" }, range: [-0.7, set.steps - 0.3] };
  layout.hovermode = "x";
  layout.shapes = [stepLine(), ...rules.flatMap((rule) => stopLine(rule))];
  layout.annotations = stopLetters(set, rules);
  const traces = set.scores === null ? [voteBars(set, steps, layout)] : scoreLines(set, steps, layout, rules);
  return Plotly.react("chart", traces, layout, QUIET_CHART);
}

function stepLine() {
  const line = { color: colour("text"), width: 1.5 };
  return { type: "line", xref: "x", yref: "paper", x0: player.step, x1: player.step, y0: 0, y1: 1, line };
}

function moveStepLine() {
  Plotly.relayout("chart", { "shapes[0].x0": player.step, "shapes[0].x1": player.step });
}

function stopLine(rule) {
  const stop = rule.stops[player.video];
  if (stop === NEVER) return [];
  const line = { color: colour(rule.moving ? "accent" : "soft"), width: 1.5, dash: "dash" };
  return [{ type: "line", xref: "x", yref: "paper", x0: stop, x1: stop, y0: 0, y1: 1, line }];
}

// One letter for each step at which rules decide: AC where two do.
function stopLetters(set, rules) {
  const at = new Map();
  for (const rule of rules) {
    const stop = rule.stops[player.video];
    if (stop !== NEVER) at.set(stop, [...(at.get(stop) ?? []), rule.letter]);
  }
  const near = set.steps / 30;
  let before = -Infinity, level = 0;
  return [...at.keys()].sort((a, b) => a - b).map((stop) => {
    level = stop - before < near ? 1 - level : 0;
    before = stop;
    return {
      x: stop, y: 1, xref: "x", yref: "paper", yanchor: "bottom", yshift: 12 * level, showarrow: false,
      text: `<b>${at.get(stop).join("")}</b>`, font: { size: 12, color: colour("text") },
    };
  });
}

function scoreLines(set, steps, layout, rules) {
  layout.yaxis = {
    ...layout.yaxis, range: [LOWEST, HIGHEST], tickvals: TICKS.map(logOdds), ticktext: TICKS.map(String),
    title: { text: set.kind === "calibrated" ? "probability" : "raw score", standoff: 4 },
  };
  const traces = [];
  set.categories.forEach((_, k) => {
    const look = { color: colourOf(k), dash: STROKES[Math.floor(k / DATA.palette.length) % STROKES.length] };
    const values = steps.map((step) => shown(set.scores[set.place(player.video, step) + k]));
    const says = steps.map((step) => (set.says[set.place(player.video, step) + k] ? 7 : 0));
    traces.push({
      x: steps, y: values, mode: "lines+markers", line: { ...look, width: 2.2 }, hoverinfo: "none",
      marker: { size: says, color: look.color, line: { width: 0 } },
    });
    if (set.thresholds) {
      const levels = steps.map((step) => {
        const threshold = set.thresholds[step][k];
        return threshold === null ? null : shown(threshold);
      });
      traces.push({
        x: steps, y: levels, mode: "lines", hoverinfo: "skip", opacity: 0.75,
        line: { color: look.color, width: 1.2, dash: "dot" },
      });
    }
  });
  const bound = rules.find((rule) => rule.bound !== undefined)?.bound;
  if (bound !== undefined) {
    const line = { color: colour("accent"), width: 1.5, dash: "dash" };
    layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: shown(bound), y1: shown(bound), line });
    layout.annotations.push({
      xref: "paper", x: 1, y: shown(bound), xanchor: "right", yanchor: "bottom", showarrow: false,
      text: `<b>B</b> bound ${digits(bound)}`, font: { size: 12, color: colour("accent") }, bgcolor: colour("card"),
    });
  }
  return traces;
}

function voteBars(set, steps, layout) {
  layout.yaxis = { ...layout.yaxis, range: [0, 1.05], tickvals: [0, 1], ticktext: ["no", "unsafe"] };
  return {
    x: steps, y: set.votes[player.video], type: "bar", hoverinfo: "none", marker: { color: colourOf(0) },
  };
}

const FAMILY_COLOURS = { vote: 0, confidence: 3, "likelihood ratio": 2 };
const COSTS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];

// Accuracy against cost: lines of the best rules by family, and the rules of the table.
function drawFrontier(set, rules) {
  const layout = layoutOf({ l: 62, r: 14, t: 10, b: 46 });
  const points = rules.map((rule) => ({ rule, told: measure(set, rule, EVERYONE) }));
  points.reverse(); // those that move are drawn last
  const all = set.frontier.families.flatMap((family) => family.points.map((point) => point.accuracy));
  const fixed = set.rules.map((rule) => measure(set, rule, EVERYONE).accuracy);
  // Lines may leave the chart at its lower end: what is above is worth the room.
  const lowest = Math.floor(20 * (Math.min(0.9, ...fixed, ...all.filter((one) => one > 0.78)) - 0.01)) / 20;
  const ticks = COSTS.filter((cost) => cost >= 0.9 / set.steps);
  layout.xaxis = {
    ...layout.xaxis, title: { text: "cost of an unsafe video, share of the steps" }, tickvals: ticks.map(Math.log10),
    ticktext: ticks.map(String), range: [Math.log10(0.88 / set.steps), Math.log10(1.12)],
  };
  layout.yaxis = { ...layout.yaxis, title: { text: "accuracy", standoff: 4 }, range: [lowest, 1.012] };
  layout.showlegend = true;
  layout.legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } };
  layout.margin.t = 34;
  const lines = set.frontier.families.map((family) => ({
    x: family.points.map((point) => Math.log10(point.cost)), y: family.points.map((point) => point.accuracy),
    name: family.name, mode: "lines+markers", hoverinfo: "none", opacity: 0.85,
    line: { color: colourOf(FAMILY_COLOURS[family.name]), width: 2 }, marker: { size: 5 },
  }));
  layout.annotations = pointLetters(points, lowest);
  const dots = {
    x: points.map(({ told }) => Math.log10(told.cost)), showlegend: false,
    y: points.map(({ told }) => Math.max(told.accuracy, lowest)),
    mode: "markers", hoverinfo: "none",
    marker: {
      size: 12, symbol: points.map(({ rule }) => (rule.moving ? "circle" : "diamond")),
      color: points.map(({ rule }) => colour(rule.moving ? "accent" : "soft")),
      line: { color: colour("card"), width: 1.5 },
    },
  };
  return Plotly.react("frontier", [...lines, dots], layout, QUIET_CHART);
}

// Rules at nearly the same point share a label. Below the axis' end, the label says so.
function pointLetters(points, lowest) {
  const places = [];
  for (const { rule, told } of points) {
    const x = Math.log10(told.cost), accuracy = told.accuracy;
    const isNear = (one) => Math.abs(one.x - x) < 0.06 && Math.abs(one.accuracy - accuracy) < 0.08 * (1 - lowest);
    const place = places.find(isNear);
    if (place) place.letters = [rule.letter, ...place.letters].sort();
    else places.push({ x, accuracy, letters: [rule.letter] });
  }
  return places.map(({ x, accuracy, letters }) => ({
    x, y: Math.max(accuracy, lowest), xanchor: "left", xshift: 8, yshift: -11, showarrow: false,
    text: `<b>${letters.join("")}</b>${accuracy < lowest ? ` ${accuracy.toFixed(2)} ↓` : ""}`,
    font: { size: 13, color: colour("text") },
  }));
}
