// One video: its clip, its x0 over the steps, what the detectors say of it.
"use strict";

const byId = (id) => document.getElementById(id);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const QUIET = matchMedia("(prefers-reduced-motion: reduce)");

// An element; texts from outside are texts here, whatever they hold.
function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const player = { video: 0, step: 0, playing: !QUIET.matches, clip: null, image: null, frame: 0, drawn: "", since: 0 };
const small = document.createElement("canvas");

function showVideo(place) {
  const video = VIDEOS[place];
  player.video = place;
  player.image = null;
  player.drawn = "";
  byId("video-name").textContent = video.name;
  byId("truth").replaceChildren(...badges(video));
  const hasPrompt = typeof video.prompt === "string";
  byId("prompt").textContent = hasPrompt ? video.prompt : "The prompt is not known.";
  byId("prompt").classList.toggle("none", !hasPrompt);
  showClip(video);
  loadX0(video);
}

function badges(video) {
  const kind = video.unsafe ? "unsafe" : "normal";
  const names = DETECTORS[0].categories;
  const found = [make("span", { class: `badge ${kind}` }, `truth: ${kind}`)];
  if (video.categories === null) found.push(make("span", { class: "badge plain" }, "category not known"));
  for (const k of video.categories ?? []) found.push(make("span", { class: "badge plain" }, names[k]));
  return found;
}

function showClip(video) {
  const screen = byId("clip");
  player.clip = null;
  byId("clip-figure").hidden = !VIDEOS.some((one) => one.clip);
  if (!video.clip) {
    screen.replaceChildren(make("p", {}, "There is no clip of this video."));
    return;
  }
  const isPicture = video.clip.startsWith("data:image/") || video.clip.endsWith(".gif");
  const tag = isPicture ? "img" : "video";
  const shown = make(tag, isPicture ? { alt: "The finished clip" } : { "aria-label": "The finished clip" });
  shown.addEventListener("error", () => {
    screen.replaceChildren(make("p", {}, "This clip cannot be played: the file is not there, or damaged."));
    player.clip = null;
  });
  if (!isPicture) {
    Object.assign(shown, { loop: true, muted: true, playsInline: true, preload: "auto" });
    player.clip = shown;
  }
  shown.src = video.clip;
  screen.replaceChildren(shown);
  setPlaying(player.playing);
}

function setPlaying(playing) {
  player.playing = playing;
  byId("play").textContent = playing ? "Pause" : "Play";
  if (!player.clip) return;
  if (playing) player.clip.play().catch(() => {}); // another video was chosen meanwhile
  else player.clip.pause();
}

function loadX0(video) {
  const has = DATA.x0 !== null && video.x0;
  byId("x0-figure").hidden = !DATA.x0;
  byId("strip").hidden = !DATA.x0;
  if (!has) return;
  const image = new Image();
  image.onload = () => {
    if (VIDEOS[player.video] !== video) return;
    player.image = image;
    drawStrip();
    player.drawn = "";
  };
  image.src = video.x0;
}

// Where the clip is in its loop, from 0 to 1.
function phase(now) {
  const clip = player.clip;
  if (clip && clip.duration > 0) return Math.min(clip.currentTime / clip.duration, 0.999);
  if (player.playing) player.since = now;
  const seconds = DATA.x0.of_frames / (DATA.fps ?? 8);
  return (player.since / 1000 / seconds) % 1;
}

function lastUpTo(numbers, limit) {
  let found = 0;
  numbers.forEach((number, place) => { if (number <= limit) found = place; });
  return found;
}

function animate(now) {
  if (player.image && DATA.x0) {
    const { steps, frames, of_frames } = DATA.x0;
    const line = lastUpTo(steps, player.step);
    const column = lastUpTo(frames, Math.floor(phase(now) * of_frames));
    const wanted = `${player.video} ${line} ${column}`;
    if (wanted !== player.drawn) {
      const canvas = byId("x0");
      drawCell(canvas, line, column, 0, 0, canvas.width, canvas.height);
      player.drawn = wanted;
    }
  }
  requestAnimationFrame(animate);
}

// Draw one small frame, enlarged smoothly. A canvas of its own keeps the cells beside it out.
function drawCell(canvas, line, column, x, y, width, height) {
  const [rows, columns] = DATA.x0.size;
  const [cellHeight, cellWidth] = DATA.x0.cell;
  small.width = columns;
  small.height = rows;
  const from = [column * cellWidth, line * cellHeight, columns, rows];
  small.getContext("2d").drawImage(player.image, ...from, 0, 0, columns, rows);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, x, y, width, height);
}

// A dozen steps beside each other, over the slider of the steps.
function drawStrip() {
  const canvas = byId("strip");
  const count = Math.min(12, DATA.x0.steps.length);
  const width = canvas.width / count;
  const column = Math.floor(DATA.x0.frames.length / 2);
  for (let k = 0; k < count; k++) {
    const line = count === 1 ? 0 : Math.round((k * (DATA.x0.steps.length - 1)) / (count - 1));
    drawCell(canvas, line, column, k * width, 0, width, canvas.height);
  }
}

function prepareScreens() {
  if (!DATA.x0) return;
  const [rows, columns] = DATA.x0.size;
  const canvas = byId("x0");
  byId("x0-size").textContent = `${columns} × ${rows}`;
  canvas.width = 320;
  canvas.height = Math.round((320 * rows) / columns);
  canvas.setAttribute("aria-label", "x0 of the video at the step, as small frames");
  const strip = byId("strip");
  strip.height = Math.round((strip.width / Math.min(12, DATA.x0.steps.length)) * (rows / columns));
  for (const screen of document.querySelectorAll(".screen")) screen.style.aspectRatio = `${columns} / ${rows}`;
}

// The table of the detectors' scores at the step.
function showScores(set) {
  const { video, step } = player;
  const start = set.place(video, step);
  byId("x0-step").textContent = byId("score-step").textContent = step;
  byId("step-text").textContent = `step ${step} of ${set.steps}, counted from 0, the noisiest`;
  byId("score-kind").textContent = { calibrated: "probability", raw: "raw score" }[set.kind] ?? "";
  const lines = set.categories.map((name, k) => {
    const says = set.says[start + k] === 1;
    const score = set.scores === null ? "" : digits(set.scores[start + k]);
    const threshold = set.thresholds?.[step]?.[k];
    const swatch = make("span", { class: "swatch" });
    swatch.style.borderTopColor = colourOf(k);
    swatch.style.borderTopStyle = k < DATA.palette.length ? "solid" : "dashed";
    return make("tr", {},
      make("td", { title: name }, swatch, name), make("td", {}, score),
      make("td", {}, threshold == null ? "" : digits(threshold)),
      make("td", { class: says ? "yes" : "" }, says ? "unsafe" : "no"));
  });
  byId("scores").replaceChildren(...lines);
}

// The colour of line k; on a dark page it is brighter.
function colourOf(k) {
  const colour = DATA.palette[k % DATA.palette.length];
  if (!DARK.matches) return colour;
  const parts = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  return `rgb(${parts.map((part) => Math.round(part + 0.28 * (255 - part))).join(", ")})`;
}
