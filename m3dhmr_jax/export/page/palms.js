// Palms in an image, from what the palm network proposes in crops of it; twin of predict/palms.py.
//
// A palm is {box: [left, top, right, bottom], points: 14 numbers, score}, pixels of the image.
import { applyAffine, invertAffine } from "./crop.js";
import { PALM_IMAGE_PX } from "./squares.js";

const MIN_SCORE = 0.4;
const OVERLAP = 0.3;
// Cells per side and candidates per cell, finest first.
const GRIDS = [
  [24, 2],
  [12, 6],
];
const COORDINATES = 18;

const CELL_CENTRES = GRIDS.flatMap(([cells, candidates]) =>
  Array.from({ length: cells * cells * candidates }, (_, i) => {
    const cell = Math.floor(i / candidates);
    const step = PALM_IMAGE_PX / cells;
    return [((cell % cells) + 0.5) * step, (Math.floor(cell / cells) + 0.5) * step];
  }),
);

// Palms above MIN_SCORE of one crop.
export function palmsFromCandidates({ offsets, logits }, cropFromImage) {
  const imageFromCrop = invertAffine(cropFromImage);
  const palms = [];
  for (let i = 0; i < logits.length; i++) {
    const score = 1 / (1 + Math.exp(-logits[i]));
    if (score < MIN_SCORE) continue;
    const points = Float64Array.from(offsets.subarray(COORDINATES * i, COORDINATES * (i + 1)));
    const [halfWidth, halfHeight] = [points[2] / 2, points[3] / 2];
    [points[2], points[3]] = [points[0] + halfWidth, points[1] + halfHeight];
    [points[0], points[1]] = [points[0] - halfWidth, points[1] - halfHeight];
    for (let j = 0; j < COORDINATES; j++) {
      // The size was made a corner: it is relative to the cell's centre too.
      points[j] += CELL_CENTRES[i][j % 2] - 0.5;
    }
    const inImage = applyAffine(imageFromCrop, points);
    palms.push({ box: inImage.slice(0, 4), points: inImage.slice(4), score });
  }
  return palms;
}

// Replaces overlapping palms by their mean, weighted with the scores; best first.
export function mergePalms(palms) {
  let rest = palms.toSorted((a, b) => b.score - a.score);
  const merged = [];
  while (rest.length) {
    const isSame = rest.map((palm, i) => i === 0 || overlap(rest[0].box, palm.box) > OVERLAP);
    const group = rest.filter((_, i) => isSame[i]);
    const total = group.reduce((sum, palm) => sum + palm.score, 0);
    const mean = (name) =>
      group[0][name].map((_, d) =>
        group.reduce((sum, palm) => sum + (palm.score / total) * palm[name][d], 0),
      );
    merged.push({ box: mean("box"), points: mean("points"), score: group[0].score });
    rest = rest.filter((_, i) => !isSame[i]);
  }
  return merged;
}

// Intersection over union.
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const common = Math.max(width, 0) * Math.max(height, 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return common / (area(a) + area(b) - common + 1e-9);
}
