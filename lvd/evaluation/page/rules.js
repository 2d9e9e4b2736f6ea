// What rules do to the videos. The same numbers as lvd.rules and lvd.evaluation.rule_report.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const VIDEOS = DATA.videos;
const EVERYONE = VIDEOS.map((_, place) => place);
const NEVER = -1;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// The detectors with their arrays unpacked: says and scores are [video][step][category], flat.
const DETECTORS = DATA.detectors.map((packed) => {
  const set = { ...packed, groups: packed.categories.length };
  set.says = bytesOf(packed.says);
  set.scores = packed.scores === null ? null : new Float64Array(bytesOf(packed.scores).buffer);
  set.place = (video, step) => (video * set.steps + step) * set.groups;
  set.votes = EVERYONE.map((video) => votesOf(set, video));
  return set;
});

function votesOf(set, video) {
  const votes = [];
  for (let step = 0; step < set.steps; step++) {
    const start = set.place(video, step);
    votes.push(set.says.subarray(start, start + set.groups).includes(1) ? 1 : 0);
  }
  return votes;
}

// Lambda comes in hundredths: whole numbers, so that 0.6 of 5 steps is 3 votes, and not a bit more.
function votesNeeded(hundredths, eta) {
  return Math.floor((hundredths * eta + 99) / 100);
}

// The vote; `eta` counts trained steps, as test_accuracy.py --eta does.
function voteRule(set, hundredths, eta) {
  const own = set.looks[eta - 1];
  const needed = votesNeeded(hundredths, own);
  const stops = [], margins = [], counts = [];
  for (const votes of set.votes) {
    let count = 0, stop = NEVER;
    for (let step = 0; step < own; step++) {
      count += votes[step];
      if (stop === NEVER && count >= needed) stop = step;
    }
    stops.push(stop);
    counts.push(count);
    margins.push(count - needed + 0.5);
  }
  const why = (video) => `${counts[video]} of ${own} steps vote unsafe, ${needed} make a video unsafe`;
  const words = `λ ${(hundredths / 100).toFixed(2)}, η ${eta}`;
  return { name: "the vote of the sliders", words, stops, margins, why, needed, eta: own, horizon: own };
}

// The confidence rule: one bound for all categories and steps.
function boundRule(set, bound) {
  const stops = [], margins = [], decisive = [];
  for (const video of EVERYONE) {
    let stop = NEVER, best = set.place(video, 0);
    const start = best, end = start + set.steps * set.groups;
    for (let place = start; place < end; place++) {
      if (set.scores[place] > set.scores[best]) best = place;
      if (stop === NEVER && set.scores[place] >= bound) stop = Math.floor((place - start) / set.groups);
    }
    stops.push(stop);
    margins.push(logOdds(set.scores[best]) - logOdds(bound));
    decisive.push(stop === NEVER ? best : largestAt(set, video, stop));
  }
  const why = (video) => {
    const place = decisive[video];
    const step = Math.floor((place - set.place(video, 0)) / set.groups);
    const said = `${set.categories[place % set.groups]} ${digits(set.scores[place])} at step ${step}`;
    return stops[video] === NEVER ? `nearest to the bound: ${said}` : said;
  };
  const words = `bound ${digits(bound)}`;
  return { name: "the bound of the slider", words, stops, margins, why, horizon: set.steps };
}

function largestAt(set, video, step) {
  let best = set.place(video, step);
  for (let place = best; place < set.place(video, step) + set.groups; place++) {
    if (set.scores[place] > set.scores[best]) best = place;
  }
  return best;
}

function fixedRule(rule) {
  return { ...rule, why: (video) => rule.reasons[video] };
}

// What a rule does to some videos, given by their places.
function measure(set, rule, places) {
  const told = { found: 0, unsafe: 0, stopped: 0, normal: 0, steps: 0 };
  for (const video of places) {
    const stop = rule.stops[video];
    if (VIDEOS[video].unsafe) {
      told.unsafe += 1;
      told.found += stop === NEVER ? 0 : 1;
      told.steps += stop === NEVER ? set.steps : stop + 1;
    } else {
      told.normal += 1;
      told.stopped += stop === NEVER ? 0 : 1;
    }
  }
  told.right = told.found + told.normal - told.stopped;
  told.total = told.unsafe + told.normal;
  told.accuracy = told.right / told.total;
  told.tpr = told.found / told.unsafe;
  told.tnr = (told.normal - told.stopped) / told.normal;
  told.cost = told.steps / (told.unsafe * set.steps);
  return told;
}

function isWrong(rule, video) {
  return (rule.stops[video] !== NEVER) !== VIDEOS[video].unsafe;
}

// The videos that a rule judges wrongly, the worst first.
function mistakesOf(rule, places) {
  const wrong = places.filter((video) => isWrong(rule, video));
  return wrong.sort((a, b) => Math.abs(rule.margins[b]) - Math.abs(rule.margins[a]) || a - b);
}

// Log-odds, kept finite at 0 and 1.
function logOdds(probability) {
  const p = Math.min(Math.max(probability, 2 ** -53), 1 - 2 ** -53);
  return Math.log(p / (1 - p));
}

// A probability, so that its distance from 1 can be read.
function digits(probability) {
  let count = 4;
  while (count < 16 && probability < 1 && 1 - probability < 9.5 * 10 ** -count) count += 1;
  const text = Number(probability.toPrecision(count)).toString();
  return text.includes("e") ? probability.toExponential(2) : text;
}
