// Hands of an image in camera space; twin of predict/predictor.py and predict/methods.py.
//
// A candidate is what a method starts from: {landmarksPx, jointsRel, disagreement, presence,
// handedness, handednessProbability, cropPx: [x, y, side, side], directionRad, shape}; `shape`, if
// known from earlier frames, is {mean, std}. A hand is in metres before the camera: x right, y
// down, z forward. A method sees right hands only: image, K and candidates of left ones are
// mirrored for it, and its hands back.
import {
  applyAffine,
  invertAffine,
  mirroredIntrinsics,
  mirroredLandmarks,
  mirroredPoints,
} from "./crop.js";
import { mean } from "./detector.js";
import { landmarkStd, reliability } from "./fit.js";
import { cropOfLandmarks, handDirection, mapToCrop } from "./hand_crops.js";
import { recoverRoot } from "./place.js";
import { compose } from "./squares.js";

const UNSURE_SCORE = 0.5;
const UNSURE_SIDE = 0.7;
const SHAPE_STD = 1;
const MAX_NOISE = 0.1;

// The hand model fitted to a candidate's landmarks by `fit` of fit.js.
export function fitMethod(fit, nShapes) {
  return {
    name: "fit",
    recover(image, candidate, k) {
      const disagreement = candidate.disagreement.map((x) => (Number.isNaN(x) ? 0 : x));
      const hand = fit({
        landmarksPx: candidate.landmarksPx,
        landmarkStd: landmarkStd(disagreement),
        jointsRel: candidate.jointsRel,
        jointsWeight: 1,
        K: k,
        shapeMean: candidate.shape?.mean ?? new Float64Array(nShapes),
        shapeStd: candidate.shape?.std ?? new Float64Array(nShapes).fill(SHAPE_STD),
      });
      const trust = reliability(hand.residual, hand.jointsResidual, mean(disagreement));
      return { ...hand, landmarksPx: candidate.landmarksPx, score: candidate.presence * trust };
    },
  };
}

// A trained network on the candidate's crop of `size` px, placed by its landmarks.
export function networkMethod(network, size) {
  return {
    name: "network",
    async recover(image, candidate, k, seenFromImage) {
      const cropFromSeen = mapToCrop(candidate.cropPx, size, candidate.directionRad);
      const found = await network(image, compose(cropFromSeen, seenFromImage));
      const seenFromCrop = invertAffine(cropFromSeen);
      const landmarksPx = applyAffine(seenFromCrop, found.landmarks_px);
      const angle = Math.atan2(seenFromCrop[3], seenFromCrop[0]);
      const joints = rotated(found.joints_m, angle);
      const wrist = joints.slice(0, 3);
      const jointsRel = joints.map((x, i) => x - wrist[i % 3]);
      const root = recoverRoot(jointsRel, landmarksPx, k);
      const vertsM = Float32Array.from(
        rotated(found.vertices_m, angle),
        (x, i) => x - wrist[i % 3] + root.tM[i % 3],
      );
      const doubt = root.noisePx / (MAX_NOISE * candidate.cropPx[2]);
      return {
        vertsM,
        jointsM: jointsRel.map((x, i) => x + root.tM[i % 3]),
        landmarksPx,
        rootCovariance: root.covariance,
        noisePx: root.noisePx,
        score: candidate.presence * Math.min(Math.max(1 - doubt, 0), 1),
      };
    },
  };
}

// Points rotated about the optical axis as the crop is rotated back.
function rotated(points, angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const out = new Float64Array(points.length);
  for (let i = 0; i < points.length; i += 3) {
    const [x, y, z] = points.subarray(i, i + 3);
    out.set([cos * x - sin * y, sin * x + cos * y, z], i);
  }
  return out;
}

// Finds the hands of images and recovers them by one of the methods.
export class Predictor {
  #detector;
  #method;

  constructor(detector, method) {
    [this.#detector, this.#method] = [detector, method];
  }

  // The hands of a photo, best first.
  async photo(image, k) {
    const hands = [];
    for (const candidate of await this.find(image, true)) {
      const hand = await this.recover(image, candidate, k);
      hands.push({ ...hand, track: hands.length });
    }
    return hands;
  }

  // The candidates that the detector finds.
  async find(image, isThorough) {
    return (await this.#detector.find(image, isThorough)).map(seen);
  }

  // The hand of an earlier frame near its expected landmarks.
  async follow(image, landmarksPx, { handedness, handednessProbability }) {
    if (this.#method.name === "fit") return seen(await this.#detector.refine(image, landmarksPx));
    return {
      cropPx: cropOfLandmarks(landmarksPx),
      directionRad: handDirection(landmarksPx),
      presence: 1,
      handedness,
      handednessProbability,
    };
  }

  // The hand of a candidate.
  async recover(image, candidate, k) {
    const isLeft = candidate.handedness === "left";
    const { width } = image;
    const hand = isLeft
      ? mirroredHand(
          await this.#method.recover(
            image,
            mirroredCandidate(candidate, width),
            mirroredIntrinsics(k, width),
            [-1, 0, width - 1, 0, 1, 0],
          ),
          width,
        )
      : await this.#method.recover(image, candidate, k, [1, 0, 0, 0, 1, 0]);
    return {
      ...hand,
      handedness: candidate.handedness,
      handednessProbability: candidate.handednessProbability,
      isUnsure: !(hand.score >= UNSURE_SCORE) || candidate.handednessProbability < UNSURE_SIDE,
      cropPx: candidate.cropPx,
      directionRad: candidate.directionRad,
    };
  }
}

// The candidate of a detected hand.
function seen(detected) {
  const { landmarksPx, right } = detected;
  return {
    ...detected,
    cropPx: cropOfLandmarks(landmarksPx),
    directionRad: handDirection(landmarksPx),
    handedness: right > 0.5 ? "right" : "left",
    handednessProbability: Math.max(right, 1 - right),
  };
}

function mirroredCandidate(candidate, width) {
  const [x, y, side] = candidate.cropPx;
  return {
    ...candidate,
    landmarksPx: candidate.landmarksPx && mirroredLandmarks(candidate.landmarksPx, width),
    jointsRel: candidate.jointsRel && mirroredPoints(candidate.jointsRel),
    cropPx: [width - x - side, y, side, side],
    directionRad: -candidate.directionRad,
  };
}

function mirroredHand(hand, width) {
  const signs = [-1, 1, 1];
  return {
    ...hand,
    vertsM: mirroredPoints(hand.vertsM),
    jointsM: mirroredPoints(hand.jointsM),
    landmarksPx: mirroredLandmarks(hand.landmarksPx, width),
    rootCovariance: Array.from(
      hand.rootCovariance,
      (x, i) => x * signs[i % 3] * signs[Math.floor(i / 3)],
    ),
  };
}
