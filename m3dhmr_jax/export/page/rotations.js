// Rotations in 3D, row-major, as math3d.py and hand/articulation.py.
import { largestEigenpair4 } from "./linalg.js";

// Rodrigues' formula; exact at zero.
export function axisAngleRotation(out, x, y, z) {
  const square = x * x + y * y + z * z, isSmall = square < 1e-4, angle = Math.sqrt(square);
  const sine = isSmall ? 1 - square / 6 : Math.sin(angle) / angle;
  const cosine = isSmall ? 0.5 - square / 24 : 2 * (Math.sin(angle / 2) / angle) ** 2;
  return identityPlus(out, x, y, z, sine, cosine);
}

// From a small change of an axis-angle vector to the small rotation from the left that it causes.
export function leftJacobian(out, x, y, z) {
  const square = x * x + y * y + z * z, isSmall = square < 1e-4, angle = Math.sqrt(square);
  const first = isSmall ? 0.5 - square / 24 : (1 - Math.cos(angle)) / square;
  const second = isSmall ? 1 / 6 : (angle - Math.sin(angle)) / (angle * square);
  return identityPlus(out, x, y, z, first, second);
}

// I + first X + second X^2, where X is the matrix of the cross product with (x, y, z).
function identityPlus(out, x, y, z, first, second) {
  out[0] = 1 - second * (y * y + z * z);
  out[1] = second * x * y - first * z;
  out[2] = second * x * z + first * y;
  out[3] = second * x * y + first * z;
  out[4] = 1 - second * (x * x + z * z);
  out[5] = second * y * z - first * x;
  out[6] = second * x * z - first * y;
  out[7] = second * y * z + first * x;
  out[8] = 1 - second * (x * x + y * y);
  return out;
}

// Y(abduction) X(flexion) Z(twist), and in the columns of `axes` the axis of each of the angles.
export function jointRotation(rotation, rotationAt, axes, abduction, flexion, twist) {
  const sy = Math.sin(abduction), cy = Math.cos(abduction);
  const sx = Math.sin(flexion), cx = Math.cos(flexion);
  const sz = Math.sin(twist), cz = Math.cos(twist);
  rotation[rotationAt] = cy * cz + sy * sx * sz;
  rotation[rotationAt + 1] = sy * sx * cz - cy * sz;
  rotation[rotationAt + 2] = sy * cx;
  rotation[rotationAt + 3] = cx * sz;
  rotation[rotationAt + 4] = cx * cz;
  rotation[rotationAt + 5] = -sx;
  rotation[rotationAt + 6] = cy * sx * sz - sy * cz;
  rotation[rotationAt + 7] = sy * sz + cy * sx * cz;
  rotation[rotationAt + 8] = cy * cx;
  axes[0] = 0;
  axes[1] = cy;
  axes[2] = sy * cx;
  axes[3] = 1;
  axes[4] = 0;
  axes[5] = -sx;
  axes[6] = 0;
  axes[7] = -sy;
  axes[8] = cy * cx;
}

// The rotation of least angle from the optical axis to the ray (x, y, 1).
export function rotationToRay(rayX, rayY) {
  const length = Math.hypot(rayX, rayY, 1);
  const x = rayX / length, y = rayY / length, z = 1 / length, k = 1 / (1 + z);
  return [1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z];
}

// The proper rotation R with the largest `strength`, sum(R * moments), where moments are
// sum(after before^T); by Horn's quaternion, which needs no singular value decomposition.
export function bestRotation([xx, yx, zx, xy, yy, zy, xz, yz, zz]) {
  const { value, vector } = largestEigenpair4([
    xx + yy + zz, yz - zy, zx - xz, xy - yx,
    yz - zy, xx - yy - zz, xy + yx, zx + xz,
    zx - xz, xy + yx, yy - xx - zz, yz + zy,
    xy - yx, zx + xz, yz + zy, zz - xx - yy,
  ]);
  const [w, x, y, z] = vector;
  const rotation = [
    1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
    2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
    2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
  ];
  return { rotation, strength: value };
}
