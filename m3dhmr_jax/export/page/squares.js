// Where the detector's networks look: rotated squares of an image; twin of predict/squares.py.
//
// Points are flat arrays x0, y0, x1, y1, ... in pixels with centres on integers. A square is
// {centre: [x, y], side, direction}; directions and affine maps are those of crop.js.
import { squareMatrix } from "./crop.js";

export const PALM_IMAGE_PX = 192;
export const LANDMARK_IMAGE_PX = 224;
const PALM_SCALE = 2.6;
const PALM_SHIFT = 0.5;
const LANDMARKS_SCALE = 2.0;
const LANDMARKS_SHIFT = 0.1;
const PALM_LANDMARKS = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18];
const TILE_PARTS = [2, 4];
const TILE_OVERLAP = 0.4;
const MIN_TILE_PX = 160;
// Rotation in degrees, scale of the crop, whether it is mirrored.
const VIEWS = [
  [0, 1.0, false],
  [12, 0.95, false],
  [-12, 1.08, false],
  [0, 1.0, true],
  [12, 1.08, true],
  [-12, 0.95, true],
];

export const directionOf = (dx, dy) => Math.atan2(-dx, -dy);
export const vectorOf = (direction) => [-Math.sin(direction), -Math.cos(direction)];

// The longer side of the box around points.
export function sizeOf(points) {
  const [left, top, right, bottom] = boxOf(points);
  return Math.max(right - left, bottom - top);
}

// Left, top, right and bottom of points.
export function boxOf(points) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points.length; i += 2) {
    box[0] = Math.min(box[0], points[i]);
    box[1] = Math.min(box[1], points[i + 1]);
    box[2] = Math.max(box[2], points[i]);
    box[3] = Math.max(box[3], points[i + 1]);
  }
  return box;
}

// The crop for the first pass, from the palm {box, points} towards the fingers.
export function squareAroundPalm({ box, points }) {
  const [left, top, right, bottom] = box;
  const direction = directionOf(points[4] - points[0], points[5] - points[1]);
  const up = vectorOf(direction);
  const shift = PALM_SHIFT * (bottom - top);
  return {
    centre: [(left + right) / 2 + shift * up[0], (top + bottom) / 2 + shift * up[1]],
    side: PALM_SCALE * Math.max(right - left, bottom - top),
    direction,
  };
}

// The crop for the next pass, around palm and bases of the fingers.
export function squareAroundLandmarks(landmarks) {
  const towards = [0, 1].map((d) => {
    const [wrist, index, middle, ring] = [0, 6, 10, 14].map((i) => landmarks[2 * i + d]);
    return (index + ring) / 4 + middle / 2 - wrist;
  });
  const direction = directionOf(...towards);
  const up = vectorOf(direction);
  const right = [-up[1], up[0]];
  const along = PALM_LANDMARKS.flatMap((i) =>
    [right, up].map((axis) => axis[0] * landmarks[2 * i] + axis[1] * landmarks[2 * i + 1]),
  );
  const [low0, low1, high0, high1] = boxOf(along);
  const a = (low0 + high0) / 2;
  const b = (low1 + high1) / 2 + LANDMARKS_SHIFT * (high1 - low1);
  return {
    centre: [a * right[0] + b * up[0], a * right[1] + b * up[1]],
    side: LANDMARKS_SCALE * Math.max(high0 - low0, high1 - low1),
    direction,
  };
}

// Lists of overlapping squares that cover an image, half and then a quarter as large as it.
export function tileSquares(width, height) {
  const tilings = [];
  for (const parts of TILE_PARTS) {
    const side = Math.max(width, height) / parts;
    if (side < MIN_TILE_PX) break;
    const xs = tileCentres(width, side);
    tilings.push(
      tileCentres(height, side).flatMap((y) =>
        xs.map((x) => ({ centre: [x, y], side, direction: 0 })),
      ),
    );
  }
  return tilings;
}

function tileCentres(length, side) {
  if (length <= side) return [(length - 1) / 2];
  const steps = Math.ceil((length - side) / ((1 - TILE_OVERLAP) * side) - 1e-9);
  return Array.from(
    { length: steps + 1 },
    (_, i) => side / 2 + (i / steps) * (length - side) - 0.5,
  );
}

// The map from the image to a crop of `size` px that shows a square, its direction upwards.
export function mapToSquare({ centre, side, direction }, size) {
  return squareMatrix(...centre, side, direction, size);
}

// What each view does to an upright crop: rotation, scale and reflection about its centre.
export const VIEW_MATRICES = VIEWS.map(([degrees, scale, isMirrored]) => {
  const [cos, sin] = [Math.cos, Math.sin].map((f) => f((degrees * Math.PI) / 180) / scale);
  const sign = isMirrored ? -1 : 1;
  const c = (LANDMARK_IMAGE_PX - 1) / 2;
  const linear = [sign * cos, sin, -sign * sin, cos];
  return [
    linear[0],
    linear[1],
    c - (linear[0] + linear[1]) * c,
    linear[2],
    linear[3],
    c - (linear[2] + linear[3]) * c,
  ];
});

// First `b`, then `a`.
export function compose(a, b) {
  return [
    a[0] * b[0] + a[1] * b[3],
    a[0] * b[1] + a[1] * b[4],
    a[0] * b[2] + a[1] * b[5] + a[2],
    a[3] * b[0] + a[4] * b[3],
    a[3] * b[1] + a[4] * b[4],
    a[3] * b[2] + a[4] * b[5] + a[5],
  ];
}
