// Less jitter in video: the One-Euro filter (Casiez et al. 2012); twin of predict/smoothing.py.

const MIN_CUTOFF_HZ = 1.5;
const BETA = 20;
const ROOT_MIN_CUTOFF_HZ = 0.8;
const ROOT_BETA = 8;
const SPEED_CUTOFF_HZ = 1;

const alphaOf = (cutoffHz, stepS) => {
  const r = 2 * Math.PI * stepS * cutoffHz;
  return r / (1 + r);
};

// The next {points, velocity} of points of `d` coordinates, filtered together.
export function oneEuro(last, points, d, stepS, minCutoffHz, beta) {
  if (!last) return { points, velocity: new Float64Array(points.length) };
  const filtered = new Float64Array(points.length);
  const velocity = new Float64Array(points.length);
  const speedAlpha = alphaOf(SPEED_CUTOFF_HZ, stepS);
  for (let i = 0; i < points.length; i += d) {
    let squares = 0;
    for (let j = i; j < i + d; j++) {
      const difference = (points[j] - last.points[j]) / stepS;
      velocity[j] = last.velocity[j] + speedAlpha * (difference - last.velocity[j]);
      squares += velocity[j] ** 2;
    }
    const alpha = alphaOf(minCutoffHz + beta * Math.sqrt(squares), stepS);
    for (let j = i; j < i + d; j++) {
      filtered[j] = last.points[j] + alpha * (points[j] - last.points[j]);
    }
  }
  return { points: filtered, velocity };
}

// Filters the hands of one video, each by its `track`; restarts when time runs backwards.
export class HandSmoother {
  #last = new Map();
  #timeS = 0;

  // The filtered hands; joints are filtered as vertices are, not regressed from them.
  smooth(hands, timeS, focalPx) {
    const stepS = timeS - this.#timeS;
    const last = stepS > 0 ? this.#last : new Map();
    [this.#timeS, this.#last] = [timeS, new Map()];
    return hands.map((hand) => {
      const root = hand.jointsM.slice(0, 3);
      const before = last.get(hand.track) ?? {};
      const nVerts = hand.vertsM.length;
      const shape = new Float64Array(nVerts + hand.jointsM.length);
      shape.set(hand.vertsM);
      shape.set(hand.jointsM, nVerts);
      shape.forEach((x, i) => {
        shape[i] = x - root[i % 3];
      });
      const pxPerM = focalPx / root[2];
      const states = {
        root: oneEuro(before.root, root, 3, stepS, ROOT_MIN_CUTOFF_HZ, ROOT_BETA),
        shape: oneEuro(before.shape, shape, 3, stepS, MIN_CUTOFF_HZ, BETA),
        landmarks: oneEuro(
          before.landmarks,
          hand.landmarksPx,
          2,
          stepS,
          MIN_CUTOFF_HZ,
          BETA / pxPerM,
        ),
      };
      this.#last.set(hand.track, states);
      const moved = states.shape.points.map((x, i) => x + states.root.points[i % 3]);
      return {
        ...hand,
        vertsM: Float32Array.from(moved.subarray(0, nVerts)),
        jointsM: moved.slice(nVerts),
        landmarksPx: states.landmarks.points,
      };
    });
  }
}
