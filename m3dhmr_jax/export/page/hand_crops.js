// The crops of hands that a hand network sees; twin of the functions in predict/crops.py.
import { cropMatrix } from "./crop.js";
import { boxOf, directionOf, vectorOf } from "./squares.js";

const BOX_SCALE = 1.3;
const MESH_PER_LANDMARKS = 1.2;
const MESH_BELOW_LANDMARKS = 0.075;
const MIN_BOX_PX = 1;
const MIDDLE_BASE = 9;

// Direction of a hand from its wrist to the base of its middle finger.
export function handDirection(landmarks) {
  return directionOf(
    landmarks[2 * MIDDLE_BASE] - landmarks[0],
    landmarks[2 * MIDDLE_BASE + 1] - landmarks[1],
  );
}

// The crop [x, y, side, side] around the mesh of a hand of which only landmarks are known.
export function cropOfLandmarks(landmarks) {
  const direction = handDirection(landmarks);
  const [cos, sin] = [Math.cos(direction), Math.sin(direction)];
  const turned = landmarks.map((_, i) => {
    const [x, y] = [landmarks[i - (i % 2)], landmarks[i - (i % 2) + 1]];
    return i % 2 ? sin * x + cos * y : cos * x - sin * y;
  });
  const [left, top, right, bottom] = boxOf(turned);
  const [a, b] = [(left + right) / 2, (top + bottom) / 2];
  const side = BOX_SCALE * Math.max(right - left, bottom - top, MIN_BOX_PX);
  const up = vectorOf(direction);
  const shift = -MESH_BELOW_LANDMARKS * side;
  const x = cos * a + sin * b + 0.5 + shift * up[0];
  const y = cos * b - sin * a + 0.5 + shift * up[1];
  const larger = MESH_PER_LANDMARKS * side;
  return [x - larger / 2, y - larger / 2, larger, larger];
}

// The map from the image to a crop of `size` px, which turns this direction upright.
export function mapToCrop([x, y, side], size, direction) {
  return cropMatrix(x + side / 2, y + side / 2, side, direction, size);
}
