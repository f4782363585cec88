// Landmarks and joints of a posed hand without its surface, as hand/posed_points.py.
//
// Points: the 21 landmarks in FreiHAND order, then the 16 joints in MANO order; x, y, z of each
// follow each other. Everything is relative to the wrist joint. A landmark is a sum of one vector
// for each of a few bones, so only these pairs of bone and point are kept.
import { apply3, multiply3 } from "./linalg.js";
import { jointRotation } from "./rotations.js";

export const N_JOINTS = 21, N_BONES = 16, N_ANGLES = 45, N_POINTS = N_JOINTS + N_BONES;
const SEGMENTS = 3; // Joints of each finger.

export function makePointModel(tables) {
  const [p] = tables.by_shape_m.shape, pairs = [];
  const inBone = (data, start, bone, point) =>
    [0, 1, 2].map((axis) => data[start + (3 * bone + axis) * N_POINTS + point]);
  for (let bone = 0; bone < N_BONES; bone++) {
    for (let point = 0; point < N_POINTS; point++) {
      const offset = inBone(tables.offsets_m.data, 0, bone, point);
      const size = 3 * N_BONES * N_POINTS;
      const byShape = Array.from({ length: p }, (_, i) =>
        inBone(tables.by_shape_m.data, i * size, bone, point)).flat();
      if ([...offset, ...byShape].some((x) => x !== 0)) pairs.push({ bone, point, offset, byShape });
    }
  }
  return {
    p,
    bone: Uint8Array.from(pairs, (pair) => pair.bone),
    point: Uint8Array.from(pairs, (pair) => pair.point),
    offset: Float64Array.from(pairs.flatMap((pair) => pair.offset)),
    byShape: Float64Array.from(pairs.flatMap((pair) => pair.byShape)),
    links: tables.links.data,
    movers: Array.from({ length: N_POINTS }, (_, point) =>
      moversOf(pairs.filter((pair) => pair.point === point).map((pair) => pair.bone))),
    frame: new Float64Array(9),
    localAxes: new Float64Array(9),
    vector: new Float64Array(3),
  };
}

// The finger joints that move some of these bones: their own, and those before in their fingers.
function moversOf(bones) {
  const joints = Array.from({ length: N_BONES - 1 }, (_, i) => i + 1);
  return joints.filter((joint) =>
    bones.some((bone) => bone >= joint && bone <= lastOfFinger(joint)));
}

function lastOfFinger(joint) {
  return joint + (SEGMENTS - 1) - ((joint - 1) % SEGMENTS);
}

// Room for a posed hand. `arms`: of each joint, the points relative to it, weighted by how much
// they move with it; `axes`: columns, the axis of rotation of each angle; `bones`: from each bone's
// joint axes; `turns`: each finger joint's rotation in its own axes.
export function makePosed() {
  return {
    points: new Float64Array(3 * N_POINTS),
    arms: new Float64Array(3 * N_BONES * N_POINTS),
    axes: new Float64Array(9 * N_BONES),
    bones: new Float64Array(9 * N_BONES),
    turns: new Float64Array(9 * N_BONES),
  };
}

// `rotation` is the global one, about the wrist joint.
export function posePoints(model, rotation, angles, shape, posed) {
  turnBones(model, rotation, angles, posed);
  const { points, arms, bones } = posed, { p, vector } = model;
  arms.fill(0);
  points.fill(0);
  for (let pair = 0; pair < model.bone.length; pair++) {
    const bone = model.bone[pair], point = model.point[pair];
    for (let axis = 0; axis < 3; axis++) {
      let sum = model.offset[3 * pair + axis];
      for (let i = 0; i < p; i++) sum += shape[i] * model.byShape[3 * (pair * p + i) + axis];
      vector[axis] = sum;
    }
    apply3(vector, 0, bones, 9 * bone, vector, 0);
    add3(points, 3 * point, vector);
    for (let joint = bone; joint > 0; joint = (joint - 1) % SEGMENTS === 0 ? 0 : joint - 1) {
      add3(arms, 3 * (joint * N_POINTS + point), vector);
    }
  }
  arms.set(points);
}

function turnBones(model, rotation, angles, { axes, bones, turns }) {
  const { frame, localAxes, links } = model;
  bones.set(rotation);
  axes.set([1, 0, 0, 0, 1, 0, 0, 0, 1]);
  for (let joint = 1; joint < N_BONES; joint++) {
    const parent = (joint - 1) % SEGMENTS === 0 ? 0 : joint - 1, at = 3 * (joint - 1);
    multiply3(frame, 0, bones, 9 * parent, links, 9 * (joint - 1));
    jointRotation(turns, 9 * joint, localAxes, angles[at], angles[at + 1], angles[at + 2]);
    multiply3(bones, 9 * joint, frame, 0, turns, 9 * joint);
    multiply3(axes, 9 * joint, frame, 0, localAxes, 0);
  }
}

function add3(values, at, vector) {
  values[at] += vector[0];
  values[at + 1] += vector[1];
  values[at + 2] += vector[2];
}

// Derivatives of all points by the shape: p vectors of each point.
export function shapeDerivatives(model, { bones }, out) {
  const { p, byShape, vector } = model;
  out.fill(0);
  for (let pair = 0; pair < model.bone.length; pair++) {
    for (let i = 0; i < p; i++) {
      apply3(vector, 0, bones, 9 * model.bone[pair], byShape, 3 * (pair * p + i));
      add3(out, 3 * (model.point[pair] * p + i), vector);
    }
  }
}
