// Crops of images, as predict/crops.py makes them. An image is an ImageData; pixels have their
// centres on integers.
import { invertAffine } from "./crop.js";

// A square of the image, resampled bilinearly, as RGB bytes; black outside the image.
//
// Where it shrinks the image more than twofold, blocks of pixels are averaged first.
export function cropPixels(image, cropFromImage, size) {
  const imageFromCrop = invertAffine(cropFromImage);
  const block = Math.max(Math.floor(1 / Math.hypot(cropFromImage[0], cropFromImage[1])), 1);
  if (block === 1) return resampled(image, imageFromCrop, size);
  const { region, left, top } = averaged(image, imageFromCrop, size, block);
  const [a, b, tx, c, d, ty] = cropFromImage;
  const [x, y] = [left, top].map((start) => start + (block - 1) / 2); // The first block's centre.
  const cropFromRegion = [
    block * a,
    block * b,
    tx + a * x + b * y,
    block * c,
    block * d,
    ty + c * x + d * y,
  ];
  return resampled(region, invertAffine(cropFromRegion), size);
}

// The part of the image around a crop in blocks of pixels, and its left upper corner.
function averaged(image, [a, b, tx, c, d, ty], size, block) {
  const end = size - 1;
  const xs = [0, a * end, b * end, (a + b) * end].map((x) => x + tx);
  const ys = [0, c * end, d * end, (c + d) * end].map((y) => y + ty);
  const left = Math.max(Math.floor(Math.min(...xs)) - block, 0);
  const top = Math.max(Math.floor(Math.min(...ys)) - block, 0);
  const right = Math.min(Math.ceil(Math.max(...xs)) + block + 1, image.width);
  const bottom = Math.min(Math.ceil(Math.max(...ys)) + block + 1, image.height);
  const width = Math.max(Math.ceil((right - left) / block), 0);
  const height = Math.max(Math.ceil((bottom - top) / block), 0);
  const sums = new Uint32Array(4 * width * height);
  for (let y = top; y < bottom; y++) {
    const row = 4 * width * Math.floor((y - top) / block);
    for (let x = left; x < right; x++) {
      const [to, from] = [row + 4 * Math.floor((x - left) / block), 4 * (y * image.width + x)];
      sums[to] += image.data[from];
      sums[to + 1] += image.data[from + 1];
      sums[to + 2] += image.data[from + 2];
    }
  }
  // Half a level up, as OpenCV rounds; a clamped array would round to even.
  const data = Uint8ClampedArray.from(sums, (sum) => Math.floor(sum / (block * block) + 0.5));
  return { region: { data, width, height }, left, top };
}

// In 32 bit and in the order of OpenCV's function, as the detector feels single grey levels.
function resampled({ data, width, height }, imageFromCrop, size) {
  const f = Math.fround;
  const [a, b, tx, c, d, ty] = imageFromCrop.map(f);
  const out = new Uint8ClampedArray(3 * size * size);
  for (let row = 0, at = 0; row < size; row++) {
    const [rowX, rowY] = [f(f(b * row) + tx), f(f(d * row) + ty)];
    for (let column = 0; column < size; column++, at += 3) {
      const x = f(f(a * column) + rowX);
      const y = f(f(c * column) + rowY);
      const [x0, y0] = [Math.floor(x), Math.floor(y)];
      if (x0 < -1 || y0 < -1 || x0 >= width || y0 >= height) continue;
      const [u, v] = [f(x - x0), f(y - y0)];
      const [hasLeft, hasRight] = [x0 >= 0, x0 + 1 < width];
      const [hasTop, hasBottom] = [y0 >= 0, y0 + 1 < height];
      const from = 4 * (y0 * width + x0);
      for (let i = from; i < from + 3; i++) {
        const upperLeft = hasTop && hasLeft ? data[i] : 0;
        const upperRight = hasTop && hasRight ? data[i + 4] : 0;
        const lowerLeft = hasBottom && hasLeft ? data[i + 4 * width] : 0;
        const lowerRight = hasBottom && hasRight ? data[i + 4 * width + 4] : 0;
        const upper = f(upperLeft + f(u * (upperRight - upperLeft)));
        const lower = f(lowerLeft + f(u * (lowerRight - lowerLeft)));
        out[at + i - from] = f(upper + f(v * f(lower - upper)));
      }
    }
  }
  return new Uint8Array(out.buffer);
}
