// The surface over posed bones and its joints, as hand/skinning.py: linear blend skinning.
import { apply3 } from "./linalg.js";
import { N_BONES } from "./pose.js";

// A function from bones (rotation of each from rest), positions of their joints and shape to the
// vertices, x, y, z of each.
export function makeSkin(tables) {
  const { data: rest, shape: [vertices] } = tables.verts_m;
  const weights = sparseRows(tables.skin_weights), offsets = new Float64Array(3 * N_BONES);
  const vertex = new Float64Array(3), joint = new Float64Array(3), moved = new Float64Array(3);
  return (bones, positions, shape) => {
    for (let bone = 0; bone < N_BONES; bone++) {
      reshape(joint, tables.rest_joints.data, tables.joint_shape_basis.data, bone, N_BONES, shape);
      apply3(moved, 0, bones, 9 * bone, joint, 0);
      for (let i = 0; i < 3; i++) offsets[3 * bone + i] = positions[3 * bone + i] - moved[i];
    }
    const verts = new Float32Array(3 * vertices);
    for (let v = 0; v < vertices; v++) {
      reshape(vertex, rest, tables.shape_basis.data, v, vertices, shape);
      let x = 0, y = 0, z = 0;
      for (let k = weights.starts[v]; k < weights.starts[v + 1]; k++) {
        const bone = weights.columns[k], weight = weights.values[k];
        apply3(moved, 0, bones, 9 * bone, vertex, 0);
        x += weight * (moved[0] + offsets[3 * bone]);
        y += weight * (moved[1] + offsets[3 * bone + 1]);
        z += weight * (moved[2] + offsets[3 * bone + 2]);
      }
      verts[3 * v] = x;
      verts[3 * v + 1] = y;
      verts[3 * v + 2] = z;
    }
    return verts;
  };
}

// The i-th of n points of a hand of this shape.
function reshape(out, mean, basis, i, n, shape) {
  for (let axis = 0; axis < 3; axis++) {
    let sum = mean[3 * i + axis];
    for (let k = 0; k < shape.length; k++) sum += shape[k] * basis[3 * (k * n + i) + axis];
    out[axis] = sum;
  }
}

// A function from vertices to joints, both x, y, z of each.
export function makeRegressor(tables) {
  const { starts, columns, values } = sparseRows(tables.joint_regressor);
  return (verts) => {
    const joints = new Float64Array(3 * (starts.length - 1));
    for (let joint = 0; joint < starts.length - 1; joint++) {
      for (let k = starts[joint]; k < starts[joint + 1]; k++) {
        for (let axis = 0; axis < 3; axis++) {
          joints[3 * joint + axis] += values[k] * verts[3 * columns[k] + axis];
        }
      }
    }
    return joints;
  };
}

// The entries of a matrix that are not 0: those of row i lie from starts[i] to starts[i + 1].
function sparseRows({ data, shape: [rows, width] }) {
  const starts = [0], columns = [], values = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < width; column++) {
      const value = data[row * width + column];
      if (value === 0) continue;
      columns.push(column);
      values.push(value);
    }
    starts.push(columns.length);
  }
  return {
    starts: Uint32Array.from(starts),
    columns: Uint16Array.from(columns),
    values: Float64Array.from(values),
  };
}
