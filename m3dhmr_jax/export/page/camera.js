// The intrinsic matrix K of an image, nine numbers by rows: from EXIF or assumed; twin of
// predict/cameras.py.

export const ASSUMED_FOV_DEG = 60;
const FULL_FRAME_DIAGONAL_MM = Math.hypot(36, 24);
// Bounds of what can be typed in; beyond them a hand would be 20 m away or nearer than 1 cm.
export const FOV_LIMITS_DEG = [8, 140];

const intrinsics = (focalPx, width, height) =>
  Float64Array.of(focalPx, 0, (width - 1) / 2, 0, focalPx, (height - 1) / 2, 0, 0, 1);

// K of a camera with this field of view across the longer side.
export function intrinsicsFromFov(fovDeg, width, height) {
  return intrinsics(
    (0.5 * Math.max(width, height)) / Math.tan((fovDeg * Math.PI) / 360),
    width,
    height,
  );
}

// The field of view across the longer side that a 35 mm equivalent focal length stands for.
export function fovFromFocal35mm(focalMm, width, height) {
  const focalPx = (focalMm / FULL_FRAME_DIAGONAL_MM) * Math.hypot(width, height);
  return (2 * Math.atan(Math.max(width, height) / 2 / focalPx) * 180) / Math.PI;
}
