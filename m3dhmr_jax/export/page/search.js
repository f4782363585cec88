// From an observation to the unknowns of least cost, by damped Gauss-Newton steps, as
// fitting/search.py. It starts from the 3D landmarks or, without them, from twelve directions.
import { apply3, clamp, clampFinite, factorize, multiply3, solve } from "./linalg.js";
import { makeNormalEquations } from "./normal_equations.js";
import { FARTHEST_RAY, weightedMean3 } from "./observation.js";
import { initialEstimate } from "./place.js";
import { N_JOINTS } from "./pose.js";
import { makePrior } from "./prior.js";
import { axisAngleRotation, bestRotation } from "./rotations.js";
import { costOf, FARTHEST_M, findResiduals, makeEstimate, NEAREST_M } from "./terms.js";

export const SMALLEST_SCALE = 0.01;
export const LARGEST_STEP = 1.5; // Of any unknown: radians, or standard deviations.
export const FIRST_DAMPING = 1e-2;
export const STEPS = 12, EXPLORATION_STEPS = 5;
// Outliers lose their weight step by step, so that a bad start is not mistaken for outliers.
export const FIRST_OUTLIERS = 4, OUTLIER_DECAY = 0.6;
export const MIDDLE_JOINT = 10;

// A function from an observation and its target to the estimate of least cost and the Hessian there
// (its lower triangle); both are overwritten by the next call.
export function makeSearch(tables, model, weights, at) {
  const { gradient, hessian, linearize } = makeNormalEquations(tables, model, weights, at);
  const n = at.count, factor = new Float64Array(n * n), step = new Float64Array(n);
  const turn = new Float64Array(9);
  let current = makeEstimate(tables, at), candidate = makeEstimate(tables, at);
  let prior, target;

  function take(step) {
    axisAngleRotation(turn, step[0], step[1], step[2]);
    multiply3(candidate.rotation, 0, turn, 0, current.rotation, 0);
    for (let i = at.angles; i < n; i++) candidate.values[i] = current.values[i] + step[i];
  }

  // Sets `step`; not finite if the damped Hessian is not positive definite.
  function findStep(damping) {
    for (let row = 0; row < n; row++) {
      for (let i = row * n; i <= row * (n + 1); i++) factor[i] = hessian[i];
      factor[row * (n + 1)] += damping * (hessian[row * (n + 1)] + 1e-3);
      step[row] = -gradient[row];
    }
    factorize(factor, n);
    solve(factor, n, step);
    let largest = 0;
    for (const change of step) largest = Math.max(largest, Math.abs(change));
    const fraction = Math.min(1, LARGEST_STEP / (largest + 1e-9));
    for (let i = 0; i < n; i++) step[i] *= fraction;
  }

  // Takes steps from the candidate, each kept if it lowers the cost, which is returned.
  function descend(steps) {
    let damping = FIRST_DAMPING;
    for (let i = 0; ; i++) {
      const outlierStd = weights.outlier_std * Math.max(1, FIRST_OUTLIERS * OUTLIER_DECAY ** i);
      findResiduals(tables, model, at, target, candidate);
      const after = costOf(weights, prior, target, outlierStd, candidate);
      let cost = i === 0 ? after : costOf(weights, prior, target, outlierStd, current);
      const isBetter = i === 0 || after < cost; // Not if it is not finite.
      if (isBetter) {
        [current, candidate] = [candidate, current];
        cost = after;
      }
      damping = clamp(damping * (isBetter ? 0.3 : 4), 1e-5, 1e4);
      linearize(prior, target, outlierStd, current);
      if (i === steps) return cost;
      findStep(damping);
      take(step);
    }
  }

  function begin(start) {
    candidate.rotation.set(start.rotation);
    candidate.values.set(start.values);
  }

  return (seen, newTarget) => {
    target = newTarget;
    prior = makePrior(tables, weights, at, target);
    if (seen.jointsWeight > 0) {
      begin(startAtJoints(tables, at, target, seen));
    } else {
      let best = null, bestCost = Infinity;
      for (let number = 0; number < tables.start_rotations.shape[0]; number++) {
        begin(startBlind(tables, at, target, seen, number));
        const cost = descend(EXPLORATION_STEPS);
        if (best !== null && cost >= bestCost) continue;
        bestCost = cost;
        best = { rotation: current.rotation.slice(), values: current.values.slice() };
      }
      begin(best);
    }
    descend(STEPS);
    return { estimate: current, hessian };
  };
}

// The mean pose, rotated to the 3D landmarks.
function startAtJoints(tables, at, target, seen) {
  const hand = tables.start_joints_m.data, aligned = align(hand, target.joints, target.precision3d);
  const rotated = rotatedPoints(aligned.rotation, hand);
  const points = target.joints.map((x) => x / aligned.scale);
  return startAt(tables, at, target, seen, aligned, rotated, points);
}

// The mean pose in one of the directions, its middle finger where the image shows it.
function startBlind(tables, at, target, seen, number) {
  const { rays } = target, middle = 2 * MIDDLE_JOINT;
  let x = rays[middle] - rays[0], y = rays[middle + 1] - rays[1];
  const length = Math.hypot(x, y);
  [x, y] = length > 1e-9 ? [x / length, y / length] : [1, 0];
  const rotation = new Float64Array(9);
  multiply3(rotation, 0, [x, -y, 0, y, x, 0, 0, 0, 1], 0, tables.start_rotations.data, 9 * number);
  const rotated = rotatedPoints(rotation, tables.start_joints_m.data);
  const known = { rotation, scale: SMALLEST_SCALE };
  return startAt(tables, at, target, seen, known, rotated, rotated);
}

// The wrist goes where `points` have the least reprojection errors.
function startAt(tables, at, target, seen, { rotation, scale }, rotated, points) {
  const relative = points.map((x, i) => x - points[i % 3]);
  const tM = initialEstimate(relative, seen.landmarksPx, seen.K).tM;
  const depth = clamp(Number.isNaN(tM[2]) ? 0 : tM[2], 2 * NEAREST_M, FARTHEST_M);
  const [rayX, rayY] = tM.map((x) => clampFinite(x / depth, -FARTHEST_RAY, FARTHEST_RAY));
  const values = new Float64Array(at.count);
  values.set(tables.prior_mean_rad.data, at.angles);
  values.set(target.shapeMean, at.shape);
  values.set([rayX, rayY, Math.log(depth)], at.position);
  values.set(weightedMean3(rotated, target.precision3d), at.jointsTranslation);
  values[at.jointsScale] = -Math.log(scale);
  return { rotation, values };
}

// Rotation and scale from the first points to the second, weighted least squares.
function align(before, after, weights) {
  const from = weightedMean3(before, weights), to = weightedMean3(after, weights);
  const moments = new Float64Array(9), heaviest = Math.max(...weights, 1e-12);
  let square = 0;
  for (let i = 0; i < N_JOINTS; i++) {
    const weight = weights[i] / heaviest;
    for (let column = 0; column < 3; column++) {
      const x = before[3 * i + column] - from[column];
      square += weight * x * x;
      for (let row = 0; row < 3; row++) {
        moments[3 * row + column] += weight * (after[3 * i + row] - to[row]) * x;
      }
    }
  }
  const { rotation, strength } = bestRotation(moments);
  const scale = clamp(strength / Math.max(square, 1e-12), SMALLEST_SCALE, 1 / SMALLEST_SCALE);
  return { rotation, scale };
}

function rotatedPoints(rotation, points) {
  const rotated = new Float64Array(points.length);
  for (let at = 0; at < points.length; at += 3) apply3(rotated, at, rotation, 0, points, at);
  return rotated;
}
