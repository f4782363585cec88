// What a hand is fitted to, as fitting/observation.py and the first part of fitting/search.py.
import { apply3, clampFinite } from "./linalg.js";
import { applyAffine, invertAffine } from "./crop.js";
import { N_JOINTS } from "./pose.js";
import { rotationToRay } from "./rotations.js";

export const NETWORK_STD = 0.017; // Of landmarks, as a fraction of the box.
export const BASES = [0, 1, 5, 9, 13, 17]; // Wrist and finger bases: conventions differ.
export const COMMON = Array.from({ length: N_JOINTS }, (_, i) => i).filter((i) => !BASES.includes(i));
export const FARTHEST_RAY = 20, SMALLEST_BOX = 1e-4, SMALLEST_STD = 1e-3, LARGEST_M = 1;
const TYPICAL = [0.08, 0.2, 0.04];

// How far a fit can be trusted, from 0 to 1; below 0.5 the hand is probably wrong. `disagreement`:
// mean distance of several views' landmarks as a fraction of the hand's box; 0 if unknown.
export function reliability(residual, jointsResidual, disagreement) {
  const total = residual / TYPICAL[0] + jointsResidual / TYPICAL[1] + disagreement / TYPICAL[2];
  return 1 / (1 + total ** 2);
}

// `landmarkStd` of an observation by this landmark network; `disagreement` per landmark.
export function landmarkStd(disagreement) {
  return Float64Array.from(disagreement, (each) => Math.hypot(NETWORK_STD, each));
}

// The observation in the units of the fit: rays at depth 1 (x, y of each landmark), 3D landmarks in
// the camera's axes and centred. Clipped, so that degenerate ones stay finite.
export function asTarget(weights, seen) {
  const rays = applyAffine(invertAffine(seen.K), seen.landmarksPx);
  for (let i = 0; i < rays.length; i++) rays[i] = clampFinite(rays[i], -FARTHEST_RAY, FARTHEST_RAY);
  const [lowX, highX] = range(rays, 0, 2), [lowY, highY] = range(rays, 1, 2);
  const precision2d = new Float64Array(N_JOINTS), precision3d = new Float64Array(N_JOINTS);
  for (let i = 0; i < N_JOINTS; i++) {
    const isBase = BASES.includes(i), std = Math.max(seen.landmarkStd[i], SMALLEST_STD);
    precision2d[i] = (isBase ? weights.base_weight_2d : 1) / std ** 2;
    precision3d[i] =
      ((isBase ? weights.base_weight_3d : 1) * seen.jointsWeight) / weights.joint_std_m ** 2;
  }
  const joints = Float64Array.from(seen.jointsRel, (x) => clampFinite(x, -LARGEST_M, LARGEST_M));
  const centre = weightedMean3(joints, precision3d);
  for (let i = 0; i < joints.length; i++) joints[i] -= centre[i % 3];
  const toRay = rotationToRay((lowX + highX) / 2, (lowY + highY) / 2);
  for (let i = 0; i < N_JOINTS; i++) apply3(joints, 3 * i, toRay, 0, joints, 3 * i);
  return {
    rays,
    perBox: 1 / Math.max(highX - lowX, highY - lowY, SMALLEST_BOX),
    joints,
    precision2d,
    precision3d,
    shapeMean: seen.shapeMean,
    shapePrecision: Array.from(seen.shapeStd, (std) => Math.max(std, SMALLEST_STD) ** -2),
  };
}

// Smallest and largest of every `stride`-th value.
export function range(values, start, stride) {
  let low = Infinity, high = -Infinity;
  for (let i = start; i < values.length; i += stride) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  return [low, high];
}

export function weightedMean3(points, weights) {
  const mean = [0, 0, 0];
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    total += weights[i];
    for (let axis = 0; axis < 3; axis++) mean[axis] += weights[i] * points[3 * i + axis];
  }
  return mean.map((sum) => sum / Math.max(total, 1e-12));
}
