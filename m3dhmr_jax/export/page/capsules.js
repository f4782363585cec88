// How deep fingers are inside each other, as hand/capsules.py.
import { clamp } from "./linalg.js";

// Of each two fingers: `depth` in metres, negative where they are apart; the `pair` of capsules that
// overlaps most; the `direction` between its closest points; and how much these move with the
// `corners`, both ends of the first and of the second capsule.
export function makeOverlap(tables) {
  const [groups] = tables.groups.shape;
  return {
    depth: new Float64Array(groups),
    pair: new Uint8Array(groups),
    direction: new Float64Array(3 * groups),
    corners: new Float64Array(4 * groups),
  };
}

const closest = { u: 0, w: 0, x: 0, y: 0, z: 0, gap: 0 };

export function fingerOverlap(tables, points, overlap) {
  const { ends, distance_m: distance, groups } = tables, [count, members] = groups.shape;
  for (let group = 0; group < count; group++) {
    let deepest = -Infinity;
    for (let i = group * members; i < (group + 1) * members; i++) {
      const pair = groups.data[i];
      findClosest(points, ends.data, 4 * pair);
      const depth = distance.data[pair] - closest.gap;
      if (!(depth > deepest)) continue;
      deepest = depth;
      overlap.pair[group] = pair;
      overlap.direction[3 * group] = closest.x / closest.gap;
      overlap.direction[3 * group + 1] = closest.y / closest.gap;
      overlap.direction[3 * group + 2] = closest.z / closest.gap;
      overlap.corners[4 * group] = 1 - closest.u;
      overlap.corners[4 * group + 1] = closest.u;
      overlap.corners[4 * group + 2] = closest.w - 1;
      overlap.corners[4 * group + 3] = -closest.w;
    }
    overlap.depth[group] = deepest;
  }
}

// How far along two segments their closest points lie, and the vector between these (Ericson 2005,
// section 5.1.9).
function findClosest(points, ends, at) {
  const p = 3 * ends[at], q = 3 * ends[at + 1], r = 3 * ends[at + 2], s = 3 * ends[at + 3];
  const x1 = points[q] - points[p], x2 = points[s] - points[r], x = points[p] - points[r];
  const y1 = points[q + 1] - points[p + 1], y2 = points[s + 1] - points[r + 1];
  const z1 = points[q + 2] - points[p + 2], z2 = points[s + 2] - points[r + 2];
  const y = points[p + 1] - points[r + 1], z = points[p + 2] - points[r + 2];
  const a = Math.max(x1 * x1 + y1 * y1 + z1 * z1, 1e-12);
  const e = Math.max(x2 * x2 + y2 * y2 + z2 * z2, 1e-12);
  const b = x1 * x2 + y1 * y2 + z1 * z2;
  const c = x1 * x + y1 * y + z1 * z, f = x2 * x + y2 * y + z2 * z;
  const spread = a * e - b * b;
  let u = spread > 1e-6 * a * e ? (b * f - c * e) / Math.max(spread, 1e-24) : 0;
  const unclipped = (b * clamp(u, 0, 1) + f) / e, w = clamp(unclipped, 0, 1);
  u = clamp(w === unclipped ? u : (b * w - c) / a, 0, 1);
  closest.u = u;
  closest.w = w;
  closest.x = x + x1 * u - x2 * w;
  closest.y = y + y1 * u - y2 * w;
  closest.z = z + z1 * u - z2 * w;
  closest.gap = Math.sqrt(closest.x ** 2 + closest.y ** 2 + closest.z ** 2 + 1e-12);
}
