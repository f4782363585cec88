// Half the gradient and the Gauss-Newton Hessian of the cost, as the last part of fitting/terms.py.
//
// Every residual is a row of the Jacobian that only some unknowns move: `columns` are these, in
// ascending order, as only the lower triangle of the Hessian is filled.
import { N_BONES, N_JOINTS, N_POINTS, shapeDerivatives } from "./pose.js";
import { leftJacobian } from "./rotations.js";
import { NEAREST_M, squared } from "./terms.js";

export function makeNormalEquations(tables, model, weights, at) {
  const n = at.count, { p } = model;
  const gradient = new Float64Array(n), hessian = new Float64Array(n * n);
  const byShape = new Float64Array(3 * N_POINTS * p), turn = new Float64Array(9);
  const motion = new Float64Array(3 * n), row = new Float64Array(n);
  // Of one landmark: two rows of its reprojection, three of its distance to the 3D landmark.
  const rows = Array.from({ length: 5 }, () => new Float64Array(n));
  const pulls = new Float64Array(5), residuals = new Float64Array(5);
  const moved = Array.from({ length: N_JOINTS }, (_, point) => columnsOf([0, ...model.movers[point]]));
  const all = columnsOf(span(0, N_BONES));

  // The unknowns that move a point: rotations of these joints and the shape, which are those of the
  // `hand`, then the position and how the 3D landmarks lie.
  function columnsOf(joints) {
    const columns = [...joints.flatMap((joint) => span(3 * joint, 3)), ...span(at.shape, n - at.shape)];
    return { joints, columns: Uint8Array.from(columns), hand: 3 * joints.length + p };
  }

  // Derivatives of a point by the unknowns of the hand: three numbers for each column.
  function moveByHand(point, { joints, hand }, { arms, axes }) {
    let k = 0;
    for (const joint of joints) {
      const ahead = 3 * (joint * N_POINTS + point);
      const x = arms[ahead], y = arms[ahead + 1], z = arms[ahead + 2];
      for (let i = 9 * joint; i < 9 * joint + 3; i++, k += 3) {
        motion[k] = axes[i + 3] * z - axes[i + 6] * y;
        motion[k + 1] = axes[i + 6] * x - axes[i] * z;
        motion[k + 2] = axes[i] * y - axes[i + 3] * x;
      }
    }
    for (let i = 3 * point * p; k < 3 * hand; i++, k++) motion[k] = byShape[i];
  }

  function setReprojection(point, hand, target, outlierStd, { values, reprojection, joints }) {
    const square = squared(reprojection, 2, point);
    const weight = robustWeight(square, target.precision2d[point], outlierStd);
    const depth = Math.max(joints[3 * point + 2], NEAREST_M), scale = target.perBox / depth;
    const byPosition = scale * Math.exp(values[at.position + 2]);
    for (let axis = 0; axis < 2; axis++) {
      const ray = joints[3 * point + axis] / depth, row = rows[axis];
      for (let k = 0; k < hand; k++) row[k] = scale * (motion[3 * k + axis] - ray * motion[3 * k + 2]);
      row.fill(0, hand);
      row[hand + axis] = byPosition;
      row[hand + 2] = byPosition * (values[at.position + axis] - ray);
      pulls[axis] = weight;
      residuals[axis] = reprojection[2 * point + axis];
    }
  }

  function setDifference(point, hand, target, outlierStd, { difference, aligned }) {
    const square = squared(difference, 3, point);
    const weight = robustWeight(square, target.precision3d[point], outlierStd);
    for (let axis = 0; axis < 3; axis++) {
      const row = rows[2 + axis], next = (axis + 1) % 3, last = (axis + 2) % 3;
      for (let k = 0; k < hand; k++) row[k] = motion[3 * k + axis];
      row.fill(0, hand);
      for (let i = 0; i < 3; i++) {
        row[hand + 3 + i] =
          turn[3 * last + i] * aligned[3 * point + next] - turn[3 * next + i] * aligned[3 * point + last];
      }
      row[hand + 6 + axis] = -1;
      row[hand + 9] = -aligned[3 * point + axis];
      pulls[2 + axis] = weight;
      residuals[2 + axis] = difference[3 * point + axis];
    }
  }

  // Adds pull * row * row^T and pull * row * residual of all five rows.
  function addLandmark(columns) {
    const [r0, r1, r2, r3, r4] = rows;
    for (let a = 0; a < columns.length; a++) {
      const p0 = pulls[0] * r0[a], p1 = pulls[1] * r1[a], p2 = pulls[2] * r2[a];
      const p3 = pulls[3] * r3[a], p4 = pulls[4] * r4[a], start = columns[a] * n;
      gradient[columns[a]] += p0 * residuals[0] + p1 * residuals[1] + p2 * residuals[2]
        + p3 * residuals[3] + p4 * residuals[4];
      for (let b = 0; b <= a; b++) {
        hessian[start + columns[b]] += p0 * r0[b] + p1 * r1[b] + p2 * r2[b] + p3 * r3[b] + p4 * r4[b];
      }
    }
  }

  function addOverlap(group, { overlap, posed }) {
    const deep = (overlap.depth[group] - weights.free_overlap_m) / weights.overlap_std_m;
    if (!(deep > 0)) return;
    const [x, y, z] = overlap.direction.subarray(3 * group, 3 * group + 3), { columns, hand } = all;
    row.fill(0);
    for (let corner = 0; corner < 4; corner++) {
      const weight = -overlap.corners[4 * group + corner] / weights.overlap_std_m;
      moveByHand(tables.ends.data[4 * overlap.pair[group] + corner], all, posed);
      for (let k = 0; k < hand; k++) {
        row[k] += weight * (x * motion[3 * k] + y * motion[3 * k + 1] + z * motion[3 * k + 2]);
      }
    }
    for (let a = 0; a < hand; a++) {
      gradient[columns[a]] += row[a] * deep;
      for (let b = 0; b <= a; b++) hessian[columns[a] * n + columns[b]] += row[a] * row[b];
    }
  }

  function linearize(prior, target, outlierStd, estimate) {
    prior.begin(estimate.values, gradient, hessian);
    shapeDerivatives(model, estimate.posed, byShape);
    leftJacobian(turn, ...estimate.values.subarray(at.jointsRotation, at.jointsTranslation));
    for (let point = 0; point < N_JOINTS; point++) {
      const { columns, hand } = moved[point];
      moveByHand(point, moved[point], estimate.posed);
      setReprojection(point, hand, target, outlierStd, estimate);
      setDifference(point, hand, target, outlierStd, estimate);
      addLandmark(columns);
    }
    for (let group = 0; group < estimate.overlap.depth.length; group++) addOverlap(group, estimate);
  }

  return { gradient, hessian, linearize };
}

function span(start, count) {
  return Array.from({ length: count }, (_, i) => start + i);
}

// Precision of the quadratic that touches the robust cost.
function robustWeight(square, precision, outlierStd) {
  return precision / (1 + (square * precision) / outlierStd ** 2) ** 2;
}
