// The page: what is chosen, and what follows from it.
"use strict";

const state = { set: DETECTORS[0], active: null, rules: [], listed: EVERYONE };

function slidersRules(set) {
  const vote = voteRule(set, Number(byId("lambda").value), Number(byId("eta").value));
  const rules = [{ ...vote, key: "vote", moving: true }];
  if (set.bounds.length) {
    const bound = set.bounds[Number(byId("bound").value)];
    rules.push({ ...boundRule(set, bound), key: "bound", moving: true, bound });
  }
  return rules;
}

// A letter for each rule; B stays the bound's where there is none.
function rulesOf(set) {
  const fixed = set.rules.map((rule, k) => ({ ...fixedRule(rule), key: `rule ${k}`, letter: LETTERS[2 + k] }));
  return [...slidersRules(set).map((rule) => ({ ...rule, letter: rule.key === "vote" ? "A" : "B" })), ...fixed];
}

function activeRule() {
  return state.rules.find((rule) => rule.key === state.active) ?? state.rules[0];
}

function counted() {
  return byId("counted").value === "balanced" && DATA.balanced ? DATA.balanced : EVERYONE;
}

// Sliders or detectors have changed: all that depends on rules is new.
function update() {
  const set = state.set;
  state.rules = rulesOf(set);
  const [vote, bound] = state.rules;
  byId("lambda-text").textContent = (Number(byId("lambda").value) / 100).toFixed(2);
  byId("eta-text").textContent = byId("eta").value;
  const carried = vote.eta === Number(byId("eta").value) ? "" : ` (η counts trained steps: ${vote.eta} of these)`;
  byId("needed").textContent = `${vote.needed} of the first ${vote.eta} votes make a video unsafe${carried}`;
  if (bound?.key === "bound") byId("bound-text").textContent = digits(bound.bound);
  showTable();
  showMistakes();
  showDecisions();
  drawScores(set, state.rules);
  drawFrontier(set, state.rules);
  showList();
}

function showTable() {
  const places = counted();
  const lines = state.rules.map((rule) => {
    const told = measure(state.set, rule, places);
    const radio = make("input", { type: "radio", name: "active", value: rule.key, onchange: () => choose(rule.key) });
    radio.checked = rule.key === activeRule().key;
    const line = make("tr", { "data-rule": rule.key, class: radio.checked ? "active" : "" },
      make("td", {}, make("label", {}, radio, mark(rule), make("span", {}, make("b", {}, rule.name), " ",
        make("span", { class: "range" }, rule.words === rule.name ? "" : rule.words)))),
      rate("accuracy", told.right, told.total), rate("TPR", told.found, told.unsafe),
      rate("TNR", told.normal - told.stopped, told.normal), costCell(told));
    line.querySelector(".range").style.whiteSpace = "normal";
    return line;
  });
  const focused = document.activeElement?.name === "active" ? document.activeElement.value : null;
  byId("table").tBodies[0].replaceChildren(...lines);
  if (focused) document.querySelector(`[name="active"][value="${focused}"]`)?.focus();
  const told = measure(state.set, state.rules[0], places);
  byId("counted-note").textContent = `Counted: ${told.unsafe} unsafe and ${told.normal} normal videos.`;
}

function mark(rule) {
  return make("span", { class: rule.moving ? "mark moving" : "mark" }, rule.letter);
}

function rate(name, count, total) {
  const [low, high] = DATA.intervals[total]?.[count] ?? [0, 1];
  return make("td", { "data-label": name, "data-value": total ? count / total : "" },
    total ? (count / total).toFixed(4) : "none", " ",
    make("span", { class: "range" }, `${count} of ${total} [${low.toFixed(3)}, ${high.toFixed(3)}]`));
}

function costCell(told) {
  return make("td", { "data-label": "cost", "data-value": told.cost }, told.cost.toFixed(4), " ",
    make("span", { class: "range" }, `${(told.cost * state.set.steps).toFixed(1)} of ${state.set.steps} steps`));
}

function showMistakes() {
  const rule = activeRule();
  const wrong = mistakesOf(rule, counted());
  byId("mistakes-title").textContent = `Mistakes of ${rule.letter}, ${rule.name}: ${wrong.length || "none"}`;
  const lines = wrong.map((place) => make("li", {}, make("button", {
    type: "button", "data-video": place, "aria-current": String(place === player.video),
    onclick: () => { select(place); byId("video").scrollIntoView({ block: "start" }); },
  }, make("span", { class: "row" }, VIDEOS[place].name, make("span", { class: "flag" }, mistakeOf(place))),
  make("span", { class: "sub" }, rule.why(place)))));
  const none = make("li", { class: "none" }, "This rule judges all of these videos rightly.");
  byId("mistakes").replaceChildren(...(lines.length ? lines : [none]));
}

function mistakeOf(place) {
  return VIDEOS[place].unsafe ? "✕ missed" : "✕ falsely stopped";
}

function showDecisions() {
  const lines = state.rules.map((rule) => {
    const stop = rule.stops[player.video];
    const wrong = isWrong(rule, player.video);
    const words = stop === NEVER ? "passes" : `stopped at step ${stop}`;
    return make("tr", { "data-rule": rule.key, "data-stop": stop },
      make("td", {}, mark(rule), " ", rule.name),
      make("td", { class: `verdict ${wrong ? "wrong" : "right"}` }, `${wrong ? "✕" : "✓"} ${words}`),
      make("td", { class: "note" }, rule.why(player.video)));
  });
  byId("decisions").tBodies[0].replaceChildren(...lines);
}

// The list, as search and filters leave it.
function showList() {
  const rule = activeRule();
  const text = byId("search").value.trim().toLowerCase();
  const kind = byId("kind").value, category = byId("category").value;
  const wrongOnly = byId("wrong-only").checked;
  const fits = (place) => {
    const video = VIDEOS[place];
    const ofKind = kind === "all" || video.unsafe === (kind === "unsafe");
    const ofCategory = category === "" || (video.categories ?? []).includes(Number(category));
    const found = `${video.name} ${video.prompt ?? ""}`.toLowerCase().includes(text);
    return ofKind && ofCategory && found && (!wrongOnly || isWrong(rule, place));
  };
  const places = EVERYONE.filter(fits);
  state.listed = wrongOnly ? mistakesOf(rule, places) : places;
  byId("count").textContent = `${state.listed.length} of ${VIDEOS.length} videos`;
  byId("list").replaceChildren(...state.listed.map((place) => {
    const video = VIDEOS[place];
    const names = (video.categories ?? []).map((k) => DETECTORS[0].categories[k]).join(", ");
    const flag = isWrong(rule, place) ? make("span", { class: "flag" }, mistakeOf(place)) : null;
    return make("li", {}, make("button", {
      type: "button", "data-video": place, "aria-current": String(place === player.video), onclick: () => select(place),
    }, make("span", { class: "row" }, video.name, flag),
    make("span", { class: "sub" }, [names, video.prompt].filter(Boolean).join(" · ") || " ")));
  }));
}

function select(place) {
  showVideo(place);
  for (const button of document.querySelectorAll("[data-video]")) {
    button.setAttribute("aria-current", String(Number(button.dataset.video) === place));
  }
  const list = byId("list"), button = list.querySelector('[aria-current="true"]');
  if (button) {
    const top = button.offsetTop - list.offsetTop;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + button.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = top + button.offsetHeight - list.clientHeight;
    }
    if (list.contains(document.activeElement)) button.focus({ preventScroll: true });
  }
  showScores(state.set);
  showDecisions();
  drawScores(state.set, state.rules);
}

function move(by) {
  if (!state.listed.length) return;
  const at = state.listed.indexOf(player.video);
  const next = at < 0 ? 0 : Math.min(Math.max(at + by, 0), state.listed.length - 1);
  select(state.listed[next]);
}

function setStep(step) {
  player.step = Math.min(Math.max(step, 0), state.set.steps - 1);
  byId("step").value = player.step;
  byId("step").setAttribute("aria-valuetext", `step ${player.step} of ${state.set.steps}`);
  showScores(state.set);
  moveStepLine();
}

function choose(key) {
  state.active = key;
  showTable();
  showMistakes();
  showList();
}

function useDetectors(set) {
  state.set = set;
  byId("eta").max = set.looks.length;
  byId("bound").max = Math.max(0, set.bounds.length - 1);
  byId("step").max = set.steps - 1;
  byId("own-steps").textContent = set.own_steps;
  const legend = set.scores === null
    ? "There are votes and no scores: a bar is a step that votes unsafe."
    : "A line for each category, with a dot where its detector says unsafe: at or above its threshold (dotted).";
  byId("chart-note").textContent = `${legend} Letters: where a rule stops the video. The solid line is the step shown.`;
  byId("frontier-note").textContent = "Lines: the best rules of a family at each cost. Letters: the rules above; those "
    + `of the sliders move. All videos are counted. Of the lines: ${set.frontier.told}.`;
  showScores(set);
  update();
}

function key(event) {
  const target = event.target;
  const isField = target.matches("input[type=search], select");
  if (isField || event.ctrlKey || event.metaKey || event.altKey) return;
  const takesArrows = target.matches("input[type=range], input[type=radio]");
  const takesSpace = target.matches("input, button:not([data-video])");
  const arrows = { ArrowDown: () => move(1), ArrowUp: () => move(-1),
    ArrowRight: () => setStep(player.step + 1), ArrowLeft: () => setStep(player.step - 1) };
  const letters = { j: () => move(1), k: () => move(-1) };
  const space = { " ": () => setPlaying(!player.playing) };
  const does = letters[event.key] ?? (takesArrows ? null : arrows[event.key]) ?? (takesSpace ? null : space[event.key]);
  if (!does) return;
  event.preventDefault();
  does();
}

function begin() {
  for (const field of document.querySelectorAll("[data-steps]")) field.textContent = DETECTORS[0].steps;
  for (const letter of document.querySelectorAll("[data-mark]")) {
    letter.textContent = LETTERS[letter.dataset.mark];
    letter.classList.add("moving");
  }
  prepareScreens();
  const start = DATA.start;
  byId("eta").max = DETECTORS[0].looks.length;
  byId("bound").max = Math.max(0, DETECTORS[0].bounds.length - 1);
  byId("lambda").value = start.hundredths;
  byId("eta").value = Math.min(start.eta, DETECTORS[0].looks.length);
  byId("bound").value = DETECTORS[0].bounds.indexOf(0.98);
  state.active = start.rule;
  for (const id of ["lambda", "eta", "bound"]) byId(id).addEventListener("input", update);
  for (const id of ["kind", "category", "wrong-only"]) byId(id).addEventListener("change", showList);
  byId("search").addEventListener("input", showList);
  byId("counted").addEventListener("change", () => { showTable(); showMistakes(); });
  byId("step").addEventListener("input", () => setStep(Number(byId("step").value)));
  byId("play").addEventListener("click", () => setPlaying(!player.playing));
  byId("detectors").addEventListener("change", () => useDetectors(DETECTORS[byId("detectors").value]));
  document.addEventListener("keydown", key);
  DARK.addEventListener("change", () => { showScores(state.set); update(); });
  state.rules = rulesOf(state.set);
  const wrong = mistakesOf(activeRule(), EVERYONE);
  showVideo(wrong[0] ?? 0);
  useDetectors(DETECTORS[0]);
  select(player.video);
  byId("chart").on("plotly_click", (event) => setStep(event.points[0].x));
  byId("chart").on("plotly_hover", (event) => setStep(event.points[0].x));
  requestAnimationFrame(animate);
}

begin();
