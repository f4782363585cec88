// The terms of a fit, as the first part of fitting/terms.py: reprojection, 3D landmarks, density of
// poses, joint limits, shape, and fingers inside each other.
import { fingerOverlap, makeOverlap } from "./capsules.js";
import { apply3 } from "./linalg.js";
import { makePosed, N_ANGLES, N_JOINTS, posePoints } from "./pose.js";
import { axisAngleRotation } from "./rotations.js";

export const NEAREST_M = 0.05, FARTHEST_M = 20;
export const TRANSLATION_STD_M = 0.1; // Of the 3D landmarks relative to the wrist: hardly a limit.
// The two shifts are already in the tables.
export const DEFAULT_WEIGHTS = {
  base_shift: 0.1,
  tip_shift: 0.15,
  base_weight_2d: 0.1,
  base_weight_3d: 0.3,
  joint_std_m: 0.01,
  outlier_std: 6,
  rotation_std_rad: 0.1,
  scale_std: 0.2,
  pose_std: 1.5,
  limit_std_rad: 0.026,
  free_overlap_m: 0.001,
  overlap_std_m: 0.001,
};

// Where each unknown lies among the values of an estimate. The first three are those of a change of
// the global rotation. `position` is that of the wrist: x / z, y / z, log z; the last three say how
// the 3D landmarks lie: axis-angle, translation in metres, logarithmic scale.
export function unknownOffsets(p) {
  const shape = 3 + N_ANGLES, position = shape + p;
  const jointsRotation = position + 3, jointsTranslation = position + 6, jointsScale = position + 9;
  const count = position + 10;
  return { angles: 3, shape, position, jointsRotation, jointsTranslation, jointsScale, count };
}

// Room for unknowns, the hand that they pose, and its residuals: `joints` in camera space;
// `reprojection`, projected minus observed, as a fraction of the box; `difference`, the hand's
// joints minus the 3D landmarks, and these alone without their translation, `aligned`.
export function makeEstimate(tables, at) {
  return {
    rotation: new Float64Array(9),
    values: new Float64Array(at.count),
    posed: makePosed(),
    joints: new Float64Array(3 * N_JOINTS),
    reprojection: new Float64Array(2 * N_JOINTS),
    difference: new Float64Array(3 * N_JOINTS),
    aligned: new Float64Array(3 * N_JOINTS),
    overlap: makeOverlap(tables),
  };
}

export function wristOf(values, at) {
  const depth = Math.exp(values[at.position + 2]);
  return [values[at.position] * depth, values[at.position + 1] * depth, depth];
}

// Fills the residuals of an estimate whose rotation and values are set.
export function findResiduals(tables, model, at, target, estimate) {
  const { rotation, values, posed, joints, reprojection, difference, aligned } = estimate;
  posePoints(model, rotation, values.subarray(at.angles, at.shape),
    values.subarray(at.shape, at.position), posed);
  fingerOverlap(tables, posed.points, estimate.overlap);
  const wrist = wristOf(values, at), turn = values.subarray(at.jointsRotation, at.jointsRotation + 3);
  const scale = Math.exp(values[at.jointsScale]);
  const scaled = axisAngleRotation(new Float64Array(9), ...turn).map((x) => scale * x);
  for (let i = 0; i < N_JOINTS; i++) {
    apply3(aligned, 3 * i, scaled, 0, target.joints, 3 * i);
    for (let axis = 0; axis < 3; axis++) {
      const point = posed.points[3 * i + axis], k = 3 * i + axis;
      joints[k] = point + wrist[axis];
      difference[k] = point - aligned[k] - values[at.jointsTranslation + axis];
    }
    const depth = Math.max(joints[3 * i + 2], NEAREST_M);
    for (let axis = 0; axis < 2; axis++) {
      const ray = joints[3 * i + axis] / depth;
      reprojection[2 * i + axis] = (ray - target.rays[2 * i + axis]) * target.perBox;
    }
  }
}

// Twice the negative log density; landmarks follow Geman and McClure's robust function.
export function costOf(weights, prior, target, outlierStd, estimate) {
  let cost = prior.cost(estimate.values);
  for (let i = 0; i < N_JOINTS; i++) {
    cost += robustCost(squared(estimate.reprojection, 2, i) * target.precision2d[i], outlierStd);
    cost += robustCost(squared(estimate.difference, 3, i) * target.precision3d[i], outlierStd);
  }
  for (const depth of estimate.overlap.depth) {
    cost += (Math.max(depth - weights.free_overlap_m, 0) / weights.overlap_std_m) ** 2;
  }
  return cost;
}

function robustCost(square, outlierStd) {
  return square / (1 + square / outlierStd ** 2);
}

// Squared length of the i-th vector of d numbers.
export function squared(values, d, i) {
  let sum = 0;
  for (let axis = 0; axis < d; axis++) sum += values[d * i + axis] ** 2;
  return sum;
}
