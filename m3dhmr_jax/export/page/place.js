// Where a hand is in camera space, as camera/root_recovery.py without silhouettes.
//
// Landmarks are x, y of each, points x, y, z of each; K is the intrinsic matrix by rows.
import { applyAffine, invertAffine } from "./crop.js";
import { inverse3 } from "./linalg.js";
import { SUBSETS } from "./subsets.js";

export const NEAREST_M = 0.05, FARTHEST_M = 20; // All points, the root.
export const ROUNDS = 7;
export const NOISE_FLOOR = 5e-4; // Fraction of the hand's extent in the image.
export const INLIER_PRIOR = 0.9, INLIER_PRIOR_WEIGHT = 5; // Ratio, and its weight in landmarks.
export const ROUNDING = 1e-6;
const EULER_GAMMA = 0.5772156649015329;

// The most plausible translation of root-relative points observed at these landmarks: its position,
// its covariance by rows, and the noise of the landmarks that are not outliers.
export function recoverRoot(jointsRel, landmarksPx, K) {
  const n = landmarksPx.length / 2, { tM, noisePx2 } = initialEstimate(jointsRel, landmarksPx, K);
  const extentPx = handExtentPx(jointsRel, tM[2], K);
  const residuals = new Float64Array(2 * n), inliers = new Float64Array(n).fill(1);
  let model = inlierModel(noisePx2, inliers, extentPx), covariance;
  project(jointsRel, tM, K, landmarksPx, residuals);
  for (let round = 0; round < ROUNDS; round++) {
    expect(residuals, model, extentPx, inliers);
    const { information, gradient } = linearize(jointsRel, tM, K, residuals, inliers, model);
    covariance = inverse3(information);
    for (let row = 0; row < 3; row++) {
      for (let i = 0; i < 3; i++) tM[row] -= covariance[3 * row + i] * gradient[i];
    }
    tM[2] = depthInFront(tM[2], jointsRel);
    project(jointsRel, tM, K, landmarksPx, residuals);
    model = inlierModel(noiseOf(residuals, inliers), inliers, extentPx);
  }
  return { tM, covariance, noisePx: Math.sqrt(model.noisePx2) };
}

// The translation that most landmarks support, and their noise variance: among closed-form
// solutions of small subsets, the one with the least product of reprojection errors.
export function initialEstimate(points, landmarksPx, K) {
  const rays = applyAffine(invertAffine(K), landmarksPx), n = landmarksPx.length / 2;
  let best = null, bestLog = Infinity;
  for (const subset of SUBSETS) {
    const tM = linearTranslation(points, rays, subset);
    tM[2] = depthInFront(tM[2], points);
    const floorPx2 = (NOISE_FLOOR * handExtentPx(points, tM[2], K)) ** 2;
    let log = 0;
    for (let i = 0; i < n; i++) {
      const depth = points[3 * i + 2] + tM[2];
      const x = (points[3 * i] + tM[0]) / depth - rays[2 * i];
      const y = (points[3 * i + 1] + tM[1]) / depth - rays[2 * i + 1];
      log += Math.log((K[0] * x + K[1] * y) ** 2 + (K[3] * x + K[4] * y) ** 2 + floorPx2) / n;
    }
    if (best === null || log < bestLog) [best, bestLog] = [tM, log];
  }
  return { tM: best, noisePx2: Math.exp(bestLog + EULER_GAMMA) * 0.5 };
}

// Least squares of ray * depth - (x, y) in closed form; `rays` are the landmarks at depth 1.
function linearTranslation(points, rays, subset) {
  let rayX = 0, rayY = 0, shiftX = 0, shiftY = 0, square = 0, product = 0;
  for (const i of subset) {
    const u = rays[2 * i], v = rays[2 * i + 1], z = points[3 * i + 2];
    const x = points[3 * i] - u * z, y = points[3 * i + 1] - v * z;
    rayX += u / subset.length;
    rayY += v / subset.length;
    shiftX += x / subset.length;
    shiftY += y / subset.length;
    square += (u * u + v * v) / subset.length;
    product += (u * x + v * y) / subset.length;
  }
  const spread = square - rayX ** 2 - rayY ** 2;
  const depth = (product - rayX * shiftX - rayY * shiftY) / Math.max(spread, 1e-12);
  return [rayX * depth - shiftX, rayY * depth - shiftY, depth];
}

function depthInFront(depth, points) {
  let nearest = Infinity;
  for (let i = 2; i < points.length; i += 3) nearest = Math.min(nearest, points[i]);
  return Math.max(Math.min(depth, FARTHEST_M), NEAREST_M - nearest);
}

// About a hand's length in the image.
function handExtentPx(points, depth, K) {
  const n = points.length / 3, mean = [0, 0, 0];
  let square = 0;
  for (let i = 0; i < points.length; i++) {
    mean[i % 3] += points[i] / n;
    square += points[i] ** 2 / n;
  }
  const variance = Math.max(square - mean[0] ** 2 - mean[1] ** 2 - mean[2] ** 2, 0);
  return (2 * focalOf(K) * Math.sqrt(variance + 1e-12)) / Math.max(depth, NEAREST_M);
}

export function focalOf(K) {
  return Math.sqrt(Math.abs(K[0] * K[4] - K[1] * K[3]));
}

// Projected minus observed, pixels.
function project(points, tM, K, landmarksPx, residuals) {
  for (let i = 0; i < landmarksPx.length / 2; i++) {
    const depth = points[3 * i + 2] + tM[2];
    const x = (points[3 * i] + tM[0]) / depth, y = (points[3 * i + 1] + tM[1]) / depth;
    residuals[2 * i] = K[0] * x + K[1] * y + K[2] - landmarksPx[2 * i];
    residuals[2 * i + 1] = K[3] * x + K[4] * y + K[5] - landmarksPx[2 * i + 1];
  }
}

// The E-step: the probability that each landmark is no outlier.
function expect(residuals, { noisePx2, ratio }, extentPx, inliers) {
  const logOutlierVolume = Math.log(Math.PI) + 2 * Math.log(extentPx);
  const logPrior = Math.log(ratio) - Math.log1p(-ratio);
  for (let i = 0; i < inliers.length; i++) {
    const square = residuals[2 * i] ** 2 + residuals[2 * i + 1] ** 2;
    const logInlier = -0.5 * (square / noisePx2) - Math.log(2 * Math.PI * noisePx2);
    inliers[i] = 1 / (1 + Math.exp(-(logPrior + logInlier + logOutlierVolume)));
  }
}

// Hessian and gradient of the negative log likelihood; the prior only damps the step.
function linearize(points, tM, K, residuals, inliers, { noisePx2 }) {
  const information = [0, 0, 0, 0, 0, 0, 0, 0, 0], gradient = [0, 0, 0];
  for (let i = 0; i < inliers.length; i++) {
    const depth = points[3 * i + 2] + tM[2], weight = inliers[i] / noisePx2;
    const x = (points[3 * i] + tM[0]) / depth, y = (points[3 * i + 1] + tM[1]) / depth;
    for (let axis = 0; axis < 2; axis++) {
      const a = K[3 * axis] / depth, b = K[3 * axis + 1] / depth, row = [a, b, -(a * x + b * y)];
      for (let j = 0; j < 3; j++) {
        gradient[j] += weight * row[j] * residuals[2 * i + axis];
        for (let k = 0; k < 3; k++) information[3 * j + k] += weight * row[j] * row[k];
      }
    }
  }
  for (let j = 0; j < 3; j++) {
    information[4 * j] = (information[4 * j] + FARTHEST_M ** -2) * (1 + ROUNDING);
  }
  return { information, gradient };
}

// Weighted variance of the residuals along each axis; the translation took three of their freedoms.
function noiseOf(residuals, inliers) {
  let total = 0, square = 0;
  for (let i = 0; i < inliers.length; i++) {
    total += inliers[i];
    square += inliers[i] * (residuals[2 * i] ** 2 + residuals[2 * i + 1] ** 2);
  }
  return square / Math.max(2 * total - 3, 1);
}

function inlierModel(noisePx2, inliers, extentPx) {
  const total = inliers.reduce((sum, weight) => sum + weight, 0);
  const ratio = (total + INLIER_PRIOR * INLIER_PRIOR_WEIGHT) / (inliers.length + INLIER_PRIOR_WEIGHT);
  return { noisePx2: Math.max(noisePx2, (NOISE_FLOOR * extentPx) ** 2), ratio };
}
