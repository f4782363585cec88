// Hands of an image: where they are, landmarks and handedness; twin of predict/detector.py.
//
// A detected hand is {landmarksPx: 42 numbers in pixels of the image, jointsRel: 63 numbers in
// metres up to rotation and scale, presence, right: probability of a right hand, disagreement: 21
// fractions of the hand's size, NaN if unknown}. An image is an ImageData.
import { applyAffine, invertAffine } from "./crop.js";
import { mergePalms, palmsFromCandidates } from "./palms.js";
import {
  LANDMARK_IMAGE_PX,
  PALM_IMAGE_PX,
  VIEW_MATRICES,
  boxOf,
  compose,
  mapToSquare,
  sizeOf,
  squareAroundLandmarks,
  squareAroundPalm,
  tileSquares,
} from "./squares.js";

const MIN_HAND_PX = 20;
const MIN_PRESENCE = 0.5;
const CERTAIN_PRESENCE = 0.9;
const CERTAIN_DISTANCE = 0.067;
const MIN_MEAN_PRESENCE = 0.8;
const MAX_VIEW_DISTANCE = 0.12;
const VIEWS_PER_PASSES = 2 / 3;
const DUPLICATE_DISTANCE = 0.25;
const PART_SIZE = 0.6;
const PART_INSIDE = 0.7;
const MARGINS = [0.25, 0.5];
const LARGE_HAND = 0.3;

export const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;

// Finds hands of any number, size and direction.
export class HandDetector {
  #networks;

  // `networks`: {palms, landmarks}, as `loadNetworks` returns them.
  constructor(networks) {
    this.#networks = networks;
  }

  // All hands, best first; `isThorough`: also small ones, and hands that fill the image.
  async find(image, isThorough) {
    const hands = await this.#search(image, isThorough);
    return hands.filter((hand) => sizeOf(hand.landmarksPx) >= MIN_HAND_PX);
  }

  // The hand near known landmarks, such as those of the previous frame.
  refine(image, landmarksPx) {
    const square = squareAroundLandmarks(landmarksPx);
    return this.#landmarks(image, mapToSquare(square, LANDMARK_IMAGE_PX));
  }

  async #search(image, isThorough) {
    const { width, height } = image;
    const centre = [(width - 1) / 2, (height - 1) / 2];
    const side = Math.max(width, height);
    let hands = await this.#inSquares(image, [{ centre, side, direction: 0 }]);
    if (!isThorough) return hands;
    for (const margin of MARGINS) {
      if (hands.length) break;
      const wider = { centre, side: side * (1 + 2 * margin), direction: 0 };
      hands = await this.#inSquares(image, [wider]);
    }
    for (const tiles of tileSquares(width, height)) {
      const largest = Math.max(0, ...hands.map((hand) => sizeOf(hand.landmarksPx)));
      if (largest > LARGE_HAND * 2 * tiles[0].side) break;
      hands = mergeHands([...hands, ...(await this.#inSquares(image, tiles))]);
    }
    return hands;
  }

  // Hands whose palms are found in upright squares of the image.
  async #inSquares(image, squares) {
    const candidates = [];
    for (const square of squares) {
      const matrix = mapToSquare(square, PALM_IMAGE_PX);
      const found = await this.#networks.palms(image, matrix);
      candidates.push(...palmsFromCandidates(found, matrix));
    }
    const hands = [];
    for (const palm of mergePalms(candidates)) {
      const matrix = mapToSquare(squareAroundPalm(palm), LANDMARK_IMAGE_PX);
      const first = await this.#landmarks(image, matrix);
      if (first.presence < MIN_PRESENCE) continue;
      const second = await this.refine(image, first.landmarksPx);
      const presence = Math.min(first.presence, second.presence);
      if (presence < MIN_PRESENCE) continue;
      const size = sizeOf(second.landmarksPx);
      const disagreement = distancesOf(first.landmarksPx, second.landmarksPx).map(
        (distance) => (VIEWS_PER_PASSES * distance) / size,
      );
      hands.push({ ...second, presence, disagreement });
    }
    const accepted = [];
    const doubtful = [];
    for (const hand of mergeHands(hands)) {
      const isCertain =
        hand.presence >= CERTAIN_PRESENCE && mean(hand.disagreement) <= CERTAIN_DISTANCE;
      (isCertain ? accepted : doubtful).push(hand);
    }
    for (const hand of doubtful) {
      const view = await this.#views(image, hand.landmarksPx);
      const isAgreed = mean(view.disagreement) <= MAX_VIEW_DISTANCE;
      if (view.presence >= MIN_MEAN_PRESENCE && isAgreed) accepted.push(view);
    }
    return mergeHands(accepted);
  }

  // The mean of all views of the hand near these landmarks.
  async #views(image, landmarksPx) {
    const upright = mapToSquare(squareAroundLandmarks(landmarksPx), LANDMARK_IMAGE_PX);
    const views = [];
    for (const matrix of VIEW_MATRICES) {
      views.push(await this.#landmarks(image, compose(matrix, upright)));
    }
    const meanOf = (name) => views[0][name].map((_, i) => mean(views.map((view) => view[name][i])));
    const landmarks = meanOf("landmarksPx");
    const size = sizeOf(landmarks);
    const distances = views.map((view) => distancesOf(view.landmarksPx, landmarks));
    return {
      landmarksPx: landmarks,
      jointsRel: meanOf("jointsRel"),
      presence: mean(views.map((view) => view.presence)),
      right: mean(views.map((view) => view.right)),
      disagreement: distances[0].map((_, i) => mean(distances.map((each) => each[i])) / size),
    };
  }

  // The hand in a crop, one pass; in a mirrored crop, a right hand is a left one.
  async #landmarks(image, cropFromImage) {
    const found = await this.#networks.landmarks(image, cropFromImage);
    const imageFromCrop = invertAffine(cropFromImage);
    const [a, b, , c, d] = imageFromCrop;
    const determinant = a * d - b * c;
    const scale = Math.sqrt(Math.abs(determinant));
    const inCrop = new Float64Array(42);
    const jointsRel = new Float64Array(63);
    for (let i = 0; i < 21; i++) {
      inCrop[2 * i] = found.landmarks[3 * i] - 0.5;
      inCrop[2 * i + 1] = found.landmarks[3 * i + 1] - 0.5;
      const [x, y, z] = found.joints.subarray(3 * i, 3 * i + 3);
      jointsRel.set([(a * x + b * y) / scale, (c * x + d * y) / scale, z], 3 * i);
    }
    return {
      landmarksPx: applyAffine(imageFromCrop, inCrop),
      jointsRel,
      presence: found.presence,
      right: determinant < 0 ? 1 - found.right : found.right,
      disagreement: new Float64Array(21).fill(NaN),
    };
  }
}

// Distance of each point to its counterpart.
export function distancesOf(points, others) {
  return Float64Array.from({ length: points.length / 2 }, (_, i) =>
    Math.hypot(points[2 * i] - others[2 * i], points[2 * i + 1] - others[2 * i + 1]),
  );
}

// All hands, each once, those of high presence first.
export function mergeHands(hands) {
  const kept = [];
  for (const hand of hands.toSorted((a, b) => b.presence - a.presence)) {
    const size = sizeOf(hand.landmarksPx);
    const isNew = kept.every((other) => {
      const limit = DUPLICATE_DISTANCE * Math.max(size, sizeOf(other.landmarksPx));
      return mean(distancesOf(hand.landmarksPx, other.landmarksPx)) > limit;
    });
    if (isNew) kept.push(hand);
  }
  return kept.filter((hand) => !kept.some((other) => isPart(hand.landmarksPx, other.landmarksPx)));
}

// Whether a hand is only a part of another one.
function isPart(landmarks, others) {
  const [a, b] = [boxOf(landmarks), boxOf(others)];
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = Math.max(a[2] - a[0], 1) * Math.max(a[3] - a[1], 1);
  return sizeOf(landmarks) < PART_SIZE * sizeOf(others) && (width * height) / area >= PART_INSIDE;
}
