// The hands of a video: found once, then followed by their landmarks; twin of predict/tracking.py.
//
// Unlike there, small hands and hands that fill the image are not searched, which takes several
// frames' time, and of many hands the best MAX_HANDS are tracked.
import { distancesOf, mean } from "./detector.js";
import { boxOf, sizeOf } from "./squares.js";

const DETECTION_INTERVAL_S = 1;
const COASTING_S = 0.5;
const MAX_NOISE = 0.1;
const MIN_PRESENCE = 0.5;
const MIN_SIZE = 0.02;
const MAX_SIZE = 2;
const SAME_HAND = 0.25;
const SAME_TRACK = 1;
const OTHER_SIDE = 0.5;
const VELOCITY_MEMORY = 0.5;
const SIDE_MEMORY = 0.8;
const MIN_SHAPE_STD = 0.2;
const MAX_HANDS = 4;

// Recovers the hands of one video, frame after frame.
export class Tracker {
  #predictor;
  #tracks = [];
  #hidden = [];
  #next = 0;
  #detectedS = -Infinity;

  constructor(predictor) {
    this.#predictor = predictor;
  }

  // The hands of the next frame, in the order of their numbers in `track`.
  async next(image, timeS, k) {
    let candidates;
    if (this.#isDetectionDue(timeS)) {
      this.#detectedS = timeS;
      candidates = await this.#detect(image, timeS);
    } else {
      candidates = await this.#follow(image, this.#tracks, timeS);
    }
    const hands = [];
    for (const candidate of candidates) {
      const hand = await this.#predictor.recover(image, candidate, k);
      hands.push({ ...hand, track: candidate.track, presence: candidate.presence });
    }
    const kept = this.#unrepeated(
      hands.filter((hand) => !isLost(hand, image, k)),
      timeS,
    );
    this.#update(kept, timeS);
    return kept.toSorted((a, b) => a.track - b.track);
  }

  #isDetectionDue(timeS) {
    const isRecent = timeS >= this.#detectedS && timeS - this.#detectedS < DETECTION_INTERVAL_S;
    return !this.#tracks.length || this.#hidden.length > 0 || !isRecent;
  }

  async #follow(image, tracks, timeS) {
    const candidates = [];
    for (const track of tracks) {
      const expected = landmarksAt(track, timeS);
      const candidate = await this.#predictor.follow(image, expected, track);
      candidates.push({ ...remember(candidate, track), track: track.number });
    }
    return candidates;
  }

  // Hands that are found, with the numbers of the tracks they continue; others follow.
  async #detect(image, timeS) {
    const found = (await this.#predictor.find(image, false)).slice(0, MAX_HANDS);
    const tracks = [...this.#tracks, ...this.#hidden];
    const cost = found.map((candidate) =>
      tracks.map((track) => {
        const expected = landmarksAt(track, timeS);
        const apart = distance(expected, candidate.landmarksPx);
        const centres = centreDistance(expected, candidate.landmarksPx);
        const isOther = candidate.handedness !== track.handedness;
        return (apart + centres) / 2 + OTHER_SIDE * isOther;
      }),
    );
    const candidates = assign(cost, tracks.length, SAME_TRACK).map((i, j) => {
      const track = tracks[i];
      const number = track ? track.number : this.#next++;
      return { ...remember(found[j], track), track: number };
    });
    const numbers = new Set(candidates.map((candidate) => candidate.track));
    const rest = this.#tracks.filter((track) => !numbers.has(track.number));
    return [...candidates, ...(await this.#follow(image, rest, timeS))];
  }

  // Of hands that are nearly the same, that which fits its track best: the other is hidden.
  #unrepeated(hands, timeS) {
    const doubts = new Map(
      hands.map((hand) => {
        const track = this.#tracks.find((each) => each.number === hand.track);
        if (!track) return [hand, Infinity];
        const apart = distance(landmarksAt(track, timeS), hand.landmarksPx);
        return [hand, Math.abs(rightProbability(track) - rightProbability(hand)) + apart];
      }),
    );
    const kept = [];
    for (const hand of hands.toSorted((a, b) => doubts.get(a) - doubts.get(b))) {
      const isNew = kept.every(
        (other) => distance(other.landmarksPx, hand.landmarksPx) >= SAME_HAND,
      );
      if (isNew) kept.push(hand);
    }
    return kept;
  }

  #update(hands, timeS) {
    const before = new Map([...this.#tracks, ...this.#hidden].map((each) => [each.number, each]));
    this.#tracks = hands.map((hand) => nextTrack(before.get(hand.track), hand, timeS));
    const numbers = new Set(hands.map((hand) => hand.track));
    this.#hidden = [...before.values()].filter(
      (track) =>
        !numbers.has(track.number) && timeS >= track.timeS && timeS - track.timeS < COASTING_S,
    );
  }
}

// For each row the column of the assignment of least cost; -1: it costs no less than `limit`.
export function assign(cost, columns, limit) {
  let best = { total: Infinity, chosen: [] };
  const search = (chosen, total) => {
    if (total >= best.total) return;
    if (chosen.length === cost.length) {
      best = { total, chosen };
      return;
    }
    const row = cost[chosen.length];
    for (let i = 0; i < columns; i++) {
      if (row[i] < limit && !chosen.includes(i)) search([...chosen, i], total + row[i]);
    }
    search([...chosen, -1], total + limit);
  };
  search([], 0);
  return best.chosen;
}

function landmarksAt({ landmarksPx, velocityPx, timeS: seenS }, timeS) {
  return landmarksPx.map((x, i) => x + velocityPx[i % 2] * (timeS - seenS));
}

// Probability of a right hand from that of its side.
function rightProbability({ handedness, handednessProbability }) {
  return handedness === "right" ? handednessProbability : 1 - handednessProbability;
}

// Mean distance of landmarks to those of another hand, as a fraction of the hand's size.
function distance(landmarks, others) {
  return mean(distancesOf(landmarks, others)) / Math.max(sizeOf(landmarks), 1);
}

function centreDistance(landmarks, others) {
  const offset = [0, 1].map(
    (d) =>
      mean(landmarks.filter((_, i) => i % 2 === d)) - mean(others.filter((_, i) => i % 2 === d)),
  );
  return Math.hypot(...offset) / Math.max(sizeOf(landmarks), 1);
}

// The candidate with what its track knows of handedness and shape.
function remember(candidate, track) {
  if (!track) return candidate;
  const [before, now] = [rightProbability(track), rightProbability(candidate)];
  const right = now + SIDE_MEMORY * (before - now);
  return {
    ...candidate,
    handedness: right > 0.5 ? "right" : "left",
    handednessProbability: Math.max(right, 1 - right),
    shape: track.shape,
  };
}

function nextTrack(track, hand, timeS) {
  let velocityPx = [0, 0];
  if (track && timeS > track.timeS) {
    velocityPx = [0, 1].map((d) => {
      const moved =
        mean(
          hand.landmarksPx.map((x, i) => x - track.landmarksPx[i]).filter((_, i) => i % 2 === d),
        ) /
        (timeS - track.timeS);
      return moved + VELOCITY_MEMORY * (track.velocityPx[d] - moved);
    });
  }
  const { landmarksPx, handedness, handednessProbability } = hand;
  const shape = hand.shape && {
    mean: hand.shape,
    std: hand.shapeStd.map((x) => Math.max(x, MIN_SHAPE_STD)),
  };
  return {
    number: hand.track,
    timeS,
    landmarksPx,
    velocityPx,
    handedness,
    handednessProbability,
    shape,
  };
}

// Hands that left the image, shrank or grew implausibly, or do not look like hands.
function isLost(hand, { width, height }, k) {
  const projected = new Float64Array((hand.vertsM.length / 3) * 2);
  for (let i = 0; i < projected.length / 2; i++) {
    const [x, y, z] = hand.vertsM.subarray(3 * i, 3 * i + 3);
    projected[2 * i] = (k[0] * x + k[1] * y) / z + k[2];
    projected[2 * i + 1] = (k[4] * y) / z + k[5];
  }
  const [left, top, right, bottom] = boxOf(projected);
  const [x, y, side] = [(left + right) / 2, (top + bottom) / 2, sizeOf(projected)];
  const longer = Math.max(width, height);
  const isInside = x >= 0 && x <= width && y >= 0 && y <= height;
  const isPlausible = side >= MIN_SIZE * longer && side <= MAX_SIZE * longer;
  const looksRight = hand.noisePx <= MAX_NOISE * side && hand.presence >= MIN_PRESENCE;
  return !(isInside && isPlausible && looksRight);
}
