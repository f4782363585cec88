// Small dense linear algebra. Matrices are row-major; "at" arguments are positions in larger arrays.

export function multiply3(out, outAt, a, aAt, b, bAt) {
  for (let row = 0; row < 3; row++) {
    const x = a[aAt + 3 * row], y = a[aAt + 3 * row + 1], z = a[aAt + 3 * row + 2];
    for (let column = 0; column < 3; column++) {
      out[outAt + 3 * row + column] =
        x * b[bAt + column] + y * b[bAt + 3 + column] + z * b[bAt + 6 + column];
    }
  }
}

export function apply3(out, outAt, matrix, matrixAt, vector, vectorAt) {
  const x = vector[vectorAt], y = vector[vectorAt + 1], z = vector[vectorAt + 2];
  for (let row = 0; row < 3; row++) {
    const at = matrixAt + 3 * row;
    out[outAt + row] = matrix[at] * x + matrix[at + 1] * y + matrix[at + 2] * z;
  }
}

export function inverse3([a, b, c, d, e, f, g, h, i]) {
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    e * i - f * h, c * h - b * i, b * f - c * e,
    f * g - d * i, a * i - c * g, c * d - a * f,
    d * h - e * g, b * g - a * h, a * e - b * d,
  ].map((cofactor) => cofactor / determinant);
}

// Replaces the lower triangle of a symmetric matrix by its Cholesky factor, the diagonal by its
// reciprocal; NaN follows if the matrix is not positive definite.
export function factorize(matrix, n) {
  for (let i = 0; i < n; i++) {
    const row = i * n;
    for (let j = 0; j < i; j++) {
      matrix[row + j] = (matrix[row + j] - dot(matrix, row, j * n, j)) * matrix[j * n + j];
    }
    matrix[row + i] = 1 / Math.sqrt(matrix[row + i] - dot(matrix, row, row, i));
  }
}

// Four sums, as each addition waits for the one before.
function dot(matrix, a, b, n) {
  let first = 0, second = 0, third = 0, fourth = 0, k = 0;
  for (; k + 3 < n; k += 4) {
    first += matrix[a + k] * matrix[b + k];
    second += matrix[a + k + 1] * matrix[b + k + 1];
    third += matrix[a + k + 2] * matrix[b + k + 2];
    fourth += matrix[a + k + 3] * matrix[b + k + 3];
  }
  for (; k < n; k++) first += matrix[a + k] * matrix[b + k];
  return first + second + third + fourth;
}

// Solves in place, with the result of `factorize`.
export function solve(factor, n, x) {
  for (let i = 0; i < n; i++) {
    let sum = x[i];
    for (let k = 0; k < i; k++) sum -= factor[i * n + k] * x[k];
    x[i] = sum * factor[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    x[i] *= factor[i * n + i];
    for (let k = 0; k < i; k++) x[k] -= factor[i * n + k] * x[i];
  }
}

// Largest eigenvalue of a symmetric 4 x 4 matrix, and its unit eigenvector, by Jacobi's rotations.
export function largestEigenpair4(symmetric) {
  const a = Float64Array.from(symmetric);
  const vectors = Float64Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1);
  for (let sweep = 0; sweep < 12; sweep++) {
    for (let p = 0; p < 3; p++) {
      for (let q = p + 1; q < 4; q++) rotateAway(a, vectors, p, q);
    }
  }
  let best = 0;
  for (let i = 1; i < 4; i++) if (a[5 * i] > a[5 * best]) best = i;
  return { value: a[5 * best], vector: [0, 4, 8, 12].map((row) => vectors[row + best]) };
}

function rotateAway(a, vectors, p, q) {
  const corner = a[4 * p + q];
  if (corner === 0) return;
  const half = (a[5 * q] - a[5 * p]) / (2 * corner);
  const tangent = Math.sign(half || 1) / (Math.abs(half) + Math.hypot(half, 1));
  const cosine = 1 / Math.hypot(tangent, 1), sine = tangent * cosine;
  for (let k = 0; k < 4; k++) mix(a, 4 * k + p, 4 * k + q, cosine, sine);
  for (let k = 0; k < 4; k++) mix(a, 4 * p + k, 4 * q + k, cosine, sine);
  for (let k = 0; k < 4; k++) mix(vectors, 4 * k + p, 4 * k + q, cosine, sine);
}

function mix(values, i, j, cosine, sine) {
  const first = values[i], second = values[j];
  values[i] = cosine * first - sine * second;
  values[j] = sine * first + cosine * second;
}

// The upper one of the two in the middle.
export function median(values) {
  return Float64Array.from(values).sort()[values.length >> 1];
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// NaN becomes 0.
export function clampFinite(value, low, high) {
  return Number.isNaN(value) ? 0 : clamp(value, low, high);
}
