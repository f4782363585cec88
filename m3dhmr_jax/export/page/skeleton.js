// The 21 landmarks or joints of a hand as bones, in the colours of visualize/skeleton.py.

const FINGERS = [
  [235, 87, 87],
  [242, 165, 60],
  [88, 190, 104],
  [62, 150, 235],
  [155, 100, 225],
];
const WRIST = [240, 240, 240];
const BONE_RADIUS_M = 0.006;
const OCTAHEDRON = Uint16Array.of(
  0,
  1,
  2,
  0,
  2,
  3,
  0,
  3,
  4,
  0,
  4,
  1,
  5,
  2,
  1,
  5,
  3,
  2,
  5,
  4,
  3,
  5,
  1,
  4,
);

const css = (colour) => `rgb(${colour.join(" ")})`;
const chainOf = (finger) => [0, 1, 2, 3, 4].map((i) => (i ? 4 * finger + i : 0));

// Draws landmarks, pixels with centres on integers, with bones `width` px wide.
export function drawSkeleton(context, landmarksPx, width) {
  const point = (i) => [landmarksPx[2 * i] + 0.5, landmarksPx[2 * i + 1] + 0.5];
  const stroke = (finger, colour, lineWidth) => {
    context.beginPath();
    chainOf(finger).forEach((i) => context.lineTo(...point(i)));
    Object.assign(context, { strokeStyle: colour, lineWidth, lineJoin: "round", lineCap: "round" });
    context.stroke();
  };
  const dot = (i, colour, radius) => {
    context.beginPath();
    context.arc(...point(i), radius, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
  };
  for (const finger of FINGERS.keys()) stroke(finger, "rgb(40 40 40)", 1.7 * width);
  FINGERS.forEach((colour, finger) => stroke(finger, css(colour), width));
  for (let i = 0; i < 21; i++) {
    const colour = i ? FINGERS[Math.floor((i - 1) / 4)] : WRIST;
    dot(i, "rgb(40 40 40)", 1.6 * width);
    dot(i, "white", 1.25 * width);
    dot(i, css(colour), 0.85 * width);
  }
}

// Meshes, one for each bone, of joints in metres.
export function boneMeshes(jointsM) {
  return FINGERS.flatMap((colour, finger) => {
    const chain = chainOf(finger);
    return chain.slice(1).map((end, i) => ({
      vertices: bone(jointsM, chain[i], end),
      faces: OCTAHEDRON,
      colour: colour.map((x) => x / 255),
    }));
  });
}

// The corners of an octahedron from one joint to another, its waist near the first.
function bone(joints, start, end) {
  const a = joints.subarray(3 * start, 3 * start + 3);
  const b = joints.subarray(3 * end, 3 * end + 3);
  const along = b.map((x, d) => x - a[d]);
  const length = Math.hypot(...along) || 1;
  const axis = along.map((x) => x / length);
  // Any direction that is not that of the bone.
  const other = Math.abs(axis[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const right = unit(cross(axis, other));
  const up = cross(axis, right);
  const radius = Math.min(BONE_RADIUS_M, length / 4);
  const corner = (u, v) =>
    [0, 1, 2].map((d) => a[d] + 0.2 * along[d] + radius * (u * right[d] + v * up[d]));
  return Float32Array.of(
    ...a,
    ...corner(1, 0),
    ...corner(0, -1),
    ...corner(-1, 0),
    ...corner(0, 1),
    ...b,
  );
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function unit(a) {
  const length = Math.hypot(...a);
  return a.map((x) => x / length);
}
