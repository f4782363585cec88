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
  const byShape = new Float64Array(3 * N_POINTS * p), jacobian = new Float64Array(9);
  const motion = new Float64Array(3 * n), row = new Float64Array(n);
  const joints = Array.from({ length: N_BONES }, (_, joint) => joint);
  const moved = Array.from({ length: N_JOINTS }, (_, point) => columnsOf([0, ...model.movers[point]]));
  const all = columnsOf(joints);

  // Unknowns of the hand that these joints' rotations belong to, with those of the shape; then,
  // after `hand` of them, those of the wrist's position or of how the 3D landmarks lie.
  function columnsOf(moving) {
    const hand = [...moving.flatMap((joint) => [0, 1, 2].map((i) => 3 * joint + i)), ...span(at.shape, p)];
    return {
      joints: Uint8Array.from(moving),
      hand: hand.length,
      projected: Uint8Array.from([...hand, ...span(at.position, 3)]),
      aligned: Uint8Array.from([...hand, ...span(at.jointsRotation, 7)]),
    };
  }

  // One residual: adds weight * row * row^T and weight * row * residual.
  function addRow(columns, weight, residual) {
    for (let a = 0; a < columns.length; a++) {
      const pull = weight * row[a], start = columns[a] * n;
      if (pull === 0) continue;
      gradient[columns[a]] += pull * residual;
      for (let b = 0; b <= a; b++) hessian[start + columns[b]] += pull * row[b];
    }
  }

  // Derivatives of a landmark by the unknowns of the hand: three numbers for each column.
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

  function addLandmark(point, target, outlierStd, estimate) {
    const { values, reprojection, joints } = estimate, columns = moved[point], { hand } = columns;
    const weight = robustWeight(squared(reprojection, 2, point), target.precision2d[point], outlierStd);
    const depth = Math.max(joints[3 * point + 2], NEAREST_M), scale = target.perBox / depth;
    const wristDepth = Math.exp(values[at.position + 2]);
    for (let axis = 0; axis < 2; axis++) {
      const ray = joints[3 * point + axis] / depth;
      for (let k = 0; k < hand; k++) row[k] = scale * (motion[3 * k + axis] - ray * motion[3 * k + 2]);
      row[hand] = axis === 0 ? scale * wristDepth : 0;
      row[hand + 1] = axis === 1 ? scale * wristDepth : 0;
      row[hand + 2] = scale * wristDepth * (values[at.position + axis] - ray);
      addRow(columns.projected, weight, reprojection[2 * point + axis]);
    }
  }

  function addJoint(point, target, outlierStd, estimate) {
    const { difference, aligned } = estimate, columns = moved[point], { hand } = columns;
    const weight = robustWeight(squared(difference, 3, point), target.precision3d[point], outlierStd);
    if (weight === 0) return;
    for (let axis = 0; axis < 3; axis++) {
      for (let k = 0; k < hand; k++) row[k] = motion[3 * k + axis];
      const next = (axis + 1) % 3, last = (axis + 2) % 3;
      for (let i = 0; i < 3; i++) {
        row[hand + i] = jacobian[3 * last + i] * aligned[3 * point + next]
          - jacobian[3 * next + i] * aligned[3 * point + last];
        row[hand + 3 + i] = i === axis ? -1 : 0;
      }
      row[hand + 6] = -aligned[3 * point + axis];
      addRow(columns.aligned, weight, difference[3 * point + axis]);
    }
  }

  function addOverlap(group, { overlap, posed }) {
    const deep = overlap.depth[group] - weights.free_overlap_m, { ends } = tables;
    if (!(deep > 0)) return;
    const [x, y, z] = overlap.direction.subarray(3 * group, 3 * group + 3);
    const scale = -1 / weights.overlap_std_m;
    row.fill(0);
    for (let corner = 0; corner < 4; corner++) {
      const point = ends.data[4 * overlap.pair[group] + corner];
      const share = scale * overlap.corners[4 * group + corner];
      moveByHand(point, all, posed);
      for (let k = 0; k < all.hand; k++) {
        row[k] += share * (x * motion[3 * k] + y * motion[3 * k + 1] + z * motion[3 * k + 2]);
      }
    }
    addRow(all.projected, 1, deep / weights.overlap_std_m);
  }

  function linearize(prior, target, outlierStd, estimate) {
    prior.begin(estimate.values, gradient, hessian);
    shapeDerivatives(model, estimate.posed, byShape);
    const turn = at.jointsRotation;
    leftJacobian(jacobian, ...estimate.values.subarray(turn, turn + 3));
    for (let point = 0; point < N_JOINTS; point++) {
      moveByHand(point, moved[point], estimate.posed);
      addLandmark(point, target, outlierStd, estimate);
      addJoint(point, target, outlierStd, estimate);
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
