// The page: buttons and messages around the predictor.
import { ASSUMED_FOV_DEG, FOV_LIMITS_DEG, fovFromFocal35mm, intrinsicsFromFov } from "./camera.js";
import { HandDetector } from "./detector.js";
import { Drawing } from "./drawing.js";
import { makeFit } from "./fit.js";
import { loadNetworks, missingFeature } from "./networks.js";
import { Predictor, fitMethod, networkMethod } from "./predictor.js";
import { glbFile, jsonFile, objFile } from "./save.js";
import { HandSmoother } from "./smoothing.js";
import { close, nextFrame, openCamera, openPhoto, openVideo, readPixels } from "./sources.js";
import { Stopwatch } from "./stopwatch.js";
import { loadTables } from "./tables.js";
import { Tracker } from "./tracker.js";

const $ = (id) => document.getElementById(id);
const stopwatch = new Stopwatch(["find", "landmarks", "fit", "network", "draw"]);
let predictors; // By method.
let facesOf; // By method, then by handedness.
let source = null; // { name, video } or { name, photo, focalMm }.
let shown = null; // The frame that is drawn.
let drawing;

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("is-error", isError);
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

// Runs an action of the user; what goes wrong is said in the page.
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    console.warn(error);
    say(error.message, true);
  }
}

async function start() {
  const missing = missingFeature();
  if (missing) throw new Error(missing);
  drawing = new Drawing(
    { overlay: $("overlay"), skeletons: $("skeletons"), orbit: $("orbit") },
    (text) => {
      $("hint").textContent += ` ${text}`;
    },
  );
  const page = await (await fetch("page.json")).json();
  const tables = await loadTables(".");
  const networks = await loadNetworks(page.network, say);
  const detector = new HandDetector({
    palms: stopwatch.timed("find", networks.palms),
    landmarks: stopwatch.timed("landmarks", networks.landmarks),
  });
  const fit = fitMethod(makeFit(tables), tables.shape_basis.shape[0]);
  const methods = { fit: { ...fit, recover: stopwatch.timed("fit", fit.recover) } };
  facesOf = { fit: bothSides(tables.faces.data) };
  if (networks.hand) {
    const network = networkMethod(networks.hand, page.network.size);
    methods.network = { ...network, recover: stopwatch.timed("network", network.recover) };
    facesOf.network = bothSides(page.network.faces.flat());
    $("methods").hidden = false;
  }
  predictors = Object.fromEntries(
    Object.entries(methods).map(([name, method]) => [name, new Predictor(detector, method)]),
  );
  $("backend").textContent = `Computed by ${Object.entries(networks.backends)
    .map(([name, where]) => `${name}: ${where}`)
    .join("; ")}; one thread.`;
  for (const button of [$("camera"), $("open")]) button.disabled = false;
  say("ready");
}

function bothSides(faces) {
  const right = Uint16Array.from(faces);
  const left = right.map((_, i) => right[i - (i % 3) + 2 - (i % 3)]);
  return { right, left };
}

// K of an image, and where it comes from.
function cameraOf({ width, height }, focalMm) {
  const given = $("fov").valueAsNumber;
  const [lowest, highest] = FOV_LIMITS_DEG;
  if (given >= lowest && given <= highest) {
    return { k: intrinsicsFromFov(given, width, height), camera: "given" };
  }
  const fromExif = focalMm ? fovFromFocal35mm(focalMm, width, height) : 0;
  if (fromExif >= lowest && fromExif <= highest) {
    return { k: intrinsicsFromFov(fromExif, width, height), camera: "exif" };
  }
  return { k: intrinsicsFromFov(ASSUMED_FOV_DEG, width, height), camera: "assumed" };
}

function leave() {
  if (source?.video) close(source.video);
  source = null;
  stopwatch.restart();
  $("camera").textContent = "Start camera";
}

// Shows a new source; a camera in a mirror.
async function enter(next) {
  leave();
  source = next;
  $("hint").hidden = true;
  const isMirrored = Boolean(next.video?.srcObject);
  for (const view of document.querySelectorAll(".view")) {
    view.classList.toggle("is-mirrored", isMirrored);
  }
  drawing.isMirrored = isMirrored;
  if (isMirrored) $("camera").textContent = "Stop camera";
  await (next.video ? playVideo() : showPhoto());
}

async function showPhoto() {
  const { photo, focalMm, name } = source;
  say(`searching ${name} for hands`);
  // Lets the browser paint the message: the search leaves it no time.
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const image = readPixels(photo, $("frame"));
  const camera = cameraOf(image, focalMm);
  const method = chosen("method");
  const hands = await predictors[method].photo(image, camera.k);
  await show({ image, hands, method, ...camera, name, frame: 0, timeS: 0 }, true);
  say(hands.length ? "" : "No hand was found in this photo.");
}

async function playVideo() {
  const playing = source,
    { video, name } = playing;
  say("");
  let tracker, smoother, method;
  for (let frame = 0; ; frame++) {
    const timeS = await nextFrame(video);
    if (source !== playing) return;
    if (timeS === null) break;
    if (method !== chosen("method")) {
      method = chosen("method");
      [tracker, smoother] = [new Tracker(predictors[method]), new HandSmoother()];
    }
    const image = readPixels(video, $("frame"));
    const camera = cameraOf(image, 0);
    const found = await tracker.next(image, timeS, camera.k);
    if (source !== playing) return;
    const hands = smoother.smooth(found, timeS, camera.k[0]);
    await show({ image, hands, method, ...camera, name, frame, timeS }, frame === 0);
  }
  say(`${name} has ended`);
}

// Draws a frame and says what is in it.
async function show(frame, isNew) {
  const {
    image: { width, height },
    k,
    method,
    timeS,
  } = frame;
  const hands = frame.hands.map((hand) => ({ ...hand, faces: facesOf[method][hand.handedness] }));
  shown = { ...frame, hands, width, height };
  $("orbit-hint").hidden ||= hands.length > 0;
  await stopwatch.timed("draw", () => drawing.update({ hands, k, width, height }, isNew))();
  stopwatch.endFrame();
  $("hands").textContent = hands.map(describe).join(" · ") || "no hand";
  for (const button of document.querySelectorAll("[data-save]")) button.disabled = !hands.length;
  showSpeed(timeS > 0);
}

function describe({ handedness, jointsM, isUnsure }) {
  return `${handedness} hand, ${(100 * jointsM[2]).toFixed(0)} cm away${isUnsure ? " (unsure)" : ""}`;
}

function showSpeed(isVideo) {
  const stages = Object.entries(stopwatch.ms).filter(([, ms]) => ms > 0);
  const values = stages.map(([name, ms]) => [name, `${ms.toFixed(1)} ms`]);
  if (isVideo) values.unshift(["frames/s", stopwatch.framesPerSecond.toFixed(1)]);
  $("stats").replaceChildren(
    ...values.map(([name, value]) => {
      const row = document.createElement("div");
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, text.textContent, text.dataset.stat] = [name, value, name];
      row.append(term, text);
      return row;
    }),
  );
}

async function openFile(file) {
  if (!file) return;
  if (file.type.startsWith("video/")) {
    await enter({ name: file.name, video: await openVideo(file) });
  } else {
    const { bitmap, focalMm } = await openPhoto(file);
    await enter({ name: file.name, photo: bitmap, focalMm });
  }
}

function save(kind) {
  const files = {
    obj: () => objFile(shown.hands),
    glb: () => glbFile(shown.hands),
    json: () => jsonFile(shown),
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([files[kind]()]));
  link.download = `${shown.name.replace(/\.[^.]*$/, "")}.${kind}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

$("camera").addEventListener("click", () =>
  attempt(async () => {
    if (source?.video?.srcObject) {
      leave();
      say("");
    } else {
      await enter({ name: "camera", video: await openCamera() });
    }
  }),
);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () =>
  attempt(async () => {
    const [file] = $("file").files;
    $("file").value = ""; // The same file may be chosen again.
    await openFile(file);
  }),
);
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("is-target", name === "dragover");
    if (name === "drop" && predictors) attempt(() => openFile(event.dataTransfer.files[0]));
  });
}
for (const input of document.querySelectorAll('input[name="show"]')) {
  input.addEventListener("change", () => {
    drawing.show = chosen("show");
    drawing.draw();
  });
}
for (const input of [$("fov"), ...document.querySelectorAll('input[name="method"]')]) {
  input.addEventListener("change", () => attempt(async () => source?.photo && showPhoto()));
}
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => save(button.dataset.save));
}
attempt(start);
