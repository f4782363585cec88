// The part of the cost that needs no landmarks, as `prior_terms` in fitting/terms.py: density of
// poses, joint limits, shape, and how the 3D landmarks lie.
import { N_ANGLES } from "./pose.js";
import { TRANSLATION_STD_M } from "./terms.js";

export function makePrior(tables, weights, at, target) {
  const n = at.count, mean = new Float64Array(n), hessian = new Float64Array(n * n);
  const low = tables.low_rad.data, high = tables.high_rad.data;
  const deviation = new Float64Array(n), pull = new Float64Array(n);
  mean.set(tables.prior_mean_rad.data, at.angles);
  mean.set(target.shapeMean, at.shape);
  for (let i = 0; i < N_ANGLES; i++) {
    for (let j = 0; j < N_ANGLES; j++) {
      const precision = tables.prior_precision.data[N_ANGLES * i + j] / weights.pose_std ** 2;
      hessian[(at.angles + i) * n + at.angles + j] = precision;
    }
  }
  const setDiagonal = (start, precisions) =>
    precisions.forEach((precision, i) => { hessian[(start + i) * (n + 1)] = precision; });
  setDiagonal(at.shape, target.shapePrecision);
  setDiagonal(at.jointsRotation, Array(3).fill(weights.rotation_std_rad ** -2));
  setDiagonal(at.jointsTranslation, Array(3).fill(TRANSLATION_STD_M ** -2));
  setDiagonal(at.jointsScale, [weights.scale_std ** -2]);

  // Half the gradient of the Gaussian part, in `pull`, and its cost.
  function gaussian(values) {
    for (let i = 0; i < n; i++) deviation[i] = values[i] - mean[i];
    let cost = 0;
    for (let i = at.angles; i < n; i++) {
      let sum = 0;
      if (i < at.shape) {
        for (let j = at.angles; j < at.shape; j++) sum += hessian[i * n + j] * deviation[j];
      } else {
        sum = hessian[i * (n + 1)] * deviation[i];
      }
      pull[i] = sum;
      cost += sum * deviation[i];
    }
    return cost;
  }

  // How far an angle is beyond its limits, in standard deviations.
  function beyond(values, i) {
    const angle = values[at.angles + i];
    return (Math.max(angle - high[i], 0) + Math.min(angle - low[i], 0)) / weights.limit_std_rad;
  }

  return {
    cost(values) {
      let cost = gaussian(values);
      for (let i = 0; i < N_ANGLES; i++) cost += beyond(values, i) ** 2;
      return cost;
    },
    // Sets half the gradient and the Hessian.
    begin(values, gradient, matrix) {
      gaussian(values);
      gradient.set(pull);
      matrix.set(hessian);
      for (let i = 0; i < N_ANGLES; i++) {
        const k = at.angles + i, excess = beyond(values, i);
        if (excess === 0) continue;
        gradient[k] += excess / weights.limit_std_rad;
        matrix[k * (n + 1)] += weights.limit_std_rad ** -2;
      }
    },
  };
}
