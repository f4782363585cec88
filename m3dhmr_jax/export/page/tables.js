// The tables of a hand that Python writes (export/hand_tables.py): hand.json says where in hand.bin
// each array lies.

const FROM_FILE = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array };

// Arrays by name: {shape, data}. Floats become 64 bit, in which the fit computes.
export async function loadTables(baseUrl) {
  const [index, buffer] = await Promise.all([
    read(`${baseUrl}/hand.json`, (response) => response.json()),
    read(`${baseUrl}/hand.bin`, (response) => response.arrayBuffer()),
  ]);
  return Object.fromEntries(
    Object.entries(index).map(([name, array]) => [name, tableAt(buffer, array)]),
  );
}

async function read(url, body) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return body(response);
}

function tableAt(buffer, { dtype, shape, offset }) {
  const length = shape.reduce((product, size) => product * size, 1);
  const stored = new FROM_FILE[dtype](buffer, offset, length);
  return { shape, data: dtype === "float32" ? Float64Array.from(stored) : stored };
}
