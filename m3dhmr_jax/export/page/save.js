// The hands of a frame as files: metres in camera axes (x right, y down, z forward), .glb in
// glTF's axes; as m3dhmr predict writes them (predict/outputs.py).

const GLB_MAGIC = 0x46546c67;
const JSON_CHUNK = 0x4e4f534a;
const BINARY_CHUNK = 0x004e4942;
const [FLOAT, UNSIGNED_SHORT] = [5126, 5123];
const [VERTICES, INDICES] = [34962, 34963]; // Kinds of buffer views.
const DECIMALS_M = 5;
const DECIMALS_PX = 2;

const nameOf = (hand) => `${hand.handedness}_${hand.track}`;

// Wavefront OBJ, one object for each hand.
export function objFile(hands) {
  const lines = [];
  let first = 1;
  for (const hand of hands) {
    lines.push(`o ${nameOf(hand)}`);
    for (let i = 0; i < hand.vertsM.length; i += 3) {
      lines.push(`v ${Array.from(hand.vertsM.subarray(i, i + 3), (x) => x.toFixed(6)).join(" ")}`);
    }
    for (let i = 0; i < hand.faces.length; i += 3) {
      lines.push(`f ${Array.from(hand.faces.subarray(i, i + 3), (v) => v + first).join(" ")}`);
    }
    first += hand.vertsM.length / 3;
  }
  return `${lines.join("\n")}\n`;
}

// Binary glTF 2.0, one node for each hand.
export function glbFile(hands) {
  const gltf = {
    asset: { version: "2.0", generator: "m3dhmr_jax" },
    scene: 0,
    scenes: [{ nodes: hands.map((_, i) => i) }],
    nodes: hands.map((hand, i) => ({ mesh: i, name: nameOf(hand) })),
    meshes: hands.map((hand, i) => ({
      name: nameOf(hand),
      primitives: [{ attributes: { POSITION: 2 * i }, indices: 2 * i + 1 }],
    })),
    accessors: [],
    bufferViews: [],
    buffers: [{ byteLength: 0 }],
  };
  const parts = [];
  const add = (array, target, accessor) => {
    const byteOffset = gltf.buffers[0].byteLength;
    gltf.accessors.push({ bufferView: gltf.bufferViews.length, ...accessor });
    gltf.bufferViews.push({ buffer: 0, byteOffset, byteLength: array.byteLength, target });
    const bytes = padded(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), 0);
    gltf.buffers[0].byteLength += bytes.length;
    parts.push(bytes);
  };
  for (const { vertsM, faces } of hands) {
    const vertices = Float32Array.from(vertsM, (x, i) => (i % 3 ? -x : x));
    const corner = (choose) =>
      [0, 1, 2].map((d) => choose(...vertices.filter((_, i) => i % 3 === d)));
    add(vertices, VERTICES, {
      componentType: FLOAT,
      type: "VEC3",
      count: vertices.length / 3,
      min: corner(Math.min),
      max: corner(Math.max),
    });
    const indices = Uint16Array.from(faces);
    add(indices, INDICES, { componentType: UNSIGNED_SHORT, type: "SCALAR", count: indices.length });
  }
  const json = padded(new TextEncoder().encode(JSON.stringify(gltf)), 32);
  const length = 12 + 8 + json.length + 8 + gltf.buffers[0].byteLength;
  return new Blob([
    words(GLB_MAGIC, 2, length),
    words(json.length, JSON_CHUNK),
    json,
    words(gltf.buffers[0].byteLength, BINARY_CHUNK),
    ...parts,
  ]);
}

function words(...values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setUint32(4 * i, value, true));
  return view;
}

// The bytes, filled up to a multiple of four.
function padded(bytes, filler) {
  const out = new Uint8Array(Math.ceil(bytes.length / 4) * 4).fill(filler);
  out.set(bytes);
  return out;
}

// A line of hands.jsonl: {name, frame, timeS, width, height, k, camera, method, hands}.
export function jsonFile({ name, frame, timeS, width, height, k, camera, method, hands }) {
  const metres = (values) => rounded(values, DECIMALS_M);
  const pixels = (values) => rounded(values, DECIMALS_PX);
  const record = {
    image: name,
    name,
    frame,
    time_s: Number(timeS.toFixed(4)),
    width,
    height,
    K: rows(rounded(k, 4), 3),
    camera,
    method,
    hands: hands.map((hand) => ({
      track: hand.track,
      handedness: hand.handedness,
      verts_m: rows(metres(hand.vertsM), 3),
      joints_m: rows(metres(hand.jointsM), 3),
      landmarks_px: rows(pixels(hand.landmarksPx), 2),
      root_m: metres(hand.jointsM.subarray(0, 3)),
      root_covariance_m2: rows(Array.from(hand.rootCovariance), 3),
      noise_px: pixels([hand.noisePx])[0],
      handedness_probability: metres([hand.handednessProbability])[0],
      score: metres([hand.score])[0],
      is_unsure: hand.isUnsure,
      crop_px: pixels(hand.cropPx),
      direction_rad: metres([hand.directionRad])[0],
      ...(hand.shape && { shape: metres(hand.shape) }),
    })),
  };
  return `${JSON.stringify(record)}\n`;
}

function rounded(values, decimals) {
  return Array.from(values, (x) => Number(x.toFixed(decimals)));
}

function rows(values, length) {
  return Array.from({ length: values.length / length }, (_, i) =>
    values.slice(length * i, length * (i + 1)),
  );
}
