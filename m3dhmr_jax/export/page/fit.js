// The fit of the hand to the landmarks of one image, as fitting/fit.py: what `m3dhmr predict` does
// by default. Right hands; crop.js mirrors left ones.
import { factorize, median, multiply3, solve } from "./linalg.js";
import { makeRegressor, makeSkin } from "./mesh.js";
import { asTarget, COMMON, range } from "./observation.js";
import { focalOf } from "./place.js";
import { makePointModel, N_BONES, N_JOINTS } from "./pose.js";
import { makeSearch } from "./search.js";
import { DEFAULT_WEIGHTS, squared, unknownOffsets, wristOf } from "./terms.js";

export { landmarkStd, reliability } from "./observation.js";
export const RAYLEIGH_MEDIAN = 1.1774; // Median length of a 2D Gaussian of standard deviation 1.

// A function that fits the hand of these tables to an observation:
//   landmarksPx, jointsRel   x, y of the 21 landmarks; x, y, z of the 3D landmarks, metres, as the
//                            landmark network gives them
//   landmarkStd              standard deviation of each landmark, a fraction of the hand's box
//   jointsWeight             1, or 0 without 3D landmarks: twelve directions are tried, seven times the work
//   K                        the intrinsic matrix by rows
//   shapeMean, shapeStd      what is known of the shape: 0 and 1, or what earlier frames said
// Finite for any finite observation. The result, in camera space, metres:
//   vertsM, jointsM          x, y, z of each vertex and, in FreiHAND order, of each joint
//   rotations                each joint's own, the global one first, by rows
//   shape, shapeStd          and its standard deviation
//   rootCovariance           of the wrist's position, by rows
//   residual, jointsResidual see `reliability`
//   noisePx                  standard deviation of the landmarks along each axis
export function makeFit(tables, weights = DEFAULT_WEIGHTS) {
  const model = makePointModel(tables), at = unknownOffsets(model.p);
  const search = makeSearch(tables, model, weights, at);
  const skin = makeSkin(tables), regress = makeRegressor(tables);
  return (seen) => {
    const target = asTarget(weights, seen);
    const { estimate, hessian } = search(seen, target);
    const { values, posed, reprojection, difference } = estimate;
    const shape = values.slice(at.shape, at.position), wrist = wristOf(values, at);
    const positions = posed.points.slice(3 * N_JOINTS).map((x, i) => x + wrist[i % 3]);
    const vertsM = skin(bonesFromRest(tables, posed), positions, shape);
    const covariance = covarianceOf(hessian, at, at.shape, at.jointsRotation);
    const residual = median(COMMON.map((i) => Math.sqrt(squared(reprojection, 2, i))));
    const missedM = median(COMMON.map((i) => Math.sqrt(squared(difference, 3, i))));
    return {
      vertsM,
      jointsM: regress(vertsM),
      rotations: ownRotations(tables, estimate),
      shape,
      shapeStd: shape.map((_, i) => Math.sqrt(Math.max(finite(covariance[i][i]), 0))),
      rootCovariance: rootCovariance(covariance.slice(model.p).map((row) => row.slice(model.p)), wrist),
      residual,
      noisePx: ((residual / RAYLEIGH_MEDIAN) * focalOf(seen.K)) / target.perBox,
      jointsResidual: seen.jointsWeight > 0 ? missedM / extentOf(posed.points) : 0,
    };
  };
}

function bonesFromRest(tables, posed) {
  const bones = new Float64Array(9 * N_BONES);
  for (let i = 0; i < N_BONES; i++) multiply3(bones, 9 * i, posed.bones, 9 * i, tables.after.data, 9 * i);
  return bones;
}

// `before` has no row for the wrist.
function ownRotations(tables, { rotation, posed }) {
  const own = new Float64Array(9 * N_BONES), turned = new Float64Array(9);
  own.set(rotation);
  for (let i = 1; i < N_BONES; i++) {
    multiply3(turned, 0, tables.before.data, 9 * (i - 1), posed.turns, 9 * i);
    multiply3(own, 9 * i, turned, 0, tables.after.data, 9 * i);
  }
  return own;
}

// Of the unknowns from `start` to before `end`.
function covarianceOf(hessian, at, start, end) {
  const n = at.count, factor = hessian.slice();
  for (let i = 0; i < n; i++) factor[i * (n + 1)] += 1e-6 * hessian[i * (n + 1)] + 1e-6;
  factorize(factor, n);
  return Array.from({ length: end - start }, (_, i) => {
    const column = new Float64Array(n);
    column[start + i] = 1;
    solve(factor, n, column);
    return column.subarray(start, end);
  });
}

// From the covariance of x / z, y / z and log z.
function rootCovariance(covariance, [x, y, z]) {
  const byPosition = [[z, 0, x], [0, z, y], [0, 0, z]];
  return byPosition.flatMap((a) =>
    byPosition.map((b) => {
      let sum = 0;
      for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) sum += a[i] * covariance[i][j] * b[j];
      return finite(sum);
    }));
}

function extentOf(points) {
  const landmarks = points.subarray(0, 3 * N_JOINTS);
  return Math.max(...[0, 1, 2].map((axis) => {
    const [low, high] = range(landmarks, axis, 3);
    return high - low;
  }));
}

function finite(value) {
  return Number.isNaN(value) ? 0 : value;
}
