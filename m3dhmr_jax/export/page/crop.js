// Planar affine maps, and crops of images, as camera/pinhole.py, predict/crops.py and
// predict/squares.py. A map is [a, b, c, d, e, f]: (a x + b y + c, d x + e y + f). Pixels have their
// centres on integers. A direction of 0 is up, positive is counter-clockwise on the screen.

// Points are x, y of each; also with a 3 x 3 matrix K, whose last row is (0, 0, 1).
export function applyAffine(matrix, points) {
  const mapped = new Float64Array(points.length);
  for (let i = 0; i < points.length; i += 2) {
    mapped[i] = matrix[0] * points[i] + matrix[1] * points[i + 1] + matrix[2];
    mapped[i + 1] = matrix[3] * points[i] + matrix[4] * points[i + 1] + matrix[5];
  }
  return mapped;
}

// Not finite if the matrix is singular.
export function invertAffine([a, b, c, d, e, f]) {
  const determinant = a * e - b * d;
  const inverse = [e, -b, -d, a].map((x) => x / determinant);
  const [p, q, r, s] = inverse;
  return [p, q, -(p * c + q * f), r, s, -(r * c + s * f)];
}

// The crop of `size` px for the mesh network, with this direction upright; `side` and the centre in
// pixels of the image. As in training, the centre (x + width / 2 of a box) comes to size / 2.
export function cropMatrix(centreX, centreY, side, directionRad, size) {
  return uprightMatrix(centreX, centreY, side, directionRad, size, size / 2);
}

// The same for the networks of the detector: the centre comes to the middle of the crop's pixels.
export function squareMatrix(centreX, centreY, side, directionRad, size) {
  return uprightMatrix(centreX, centreY, side, directionRad, size, (size - 1) / 2);
}

function uprightMatrix(x, y, side, directionRad, size, middle) {
  const cosine = (size / side) * Math.cos(directionRad);
  const sine = (size / side) * Math.sin(directionRad);
  return [
    cosine, -sine, middle - cosine * x + sine * y,
    sine, cosine, middle - sine * x - cosine * y,
  ];
}

// A left hand is fitted as a right hand of the mirrored image: landmarks, 3D landmarks (or a mesh)
// and K in the mirror. Each of these undoes itself.
export function mirroredLandmarks(landmarksPx, width) {
  return Float64Array.from(landmarksPx, (value, i) => (i % 2 === 0 ? width - 1 - value : value));
}

export function mirroredPoints(points) {
  return points.map((value, i) => (i % 3 === 0 ? -value : value));
}

export function mirroredIntrinsics([fx, skew, cx, ...others], width) {
  return [fx, -skew, width - 1 - cx, ...others];
}
