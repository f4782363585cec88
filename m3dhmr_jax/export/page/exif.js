// The camera's focal length in the EXIF data of a JPEG file.

const APP1 = 0xe1;
const START_OF_SCAN = 0xda;
const EXIF = 0x45786966;
const EXIF_FOLDER = 0x8769;
const FOCAL_35MM = 0xa405;
const SHORT = 3;

// The 35 mm equivalent focal length in mm; 0 if the file does not give it.
export function focal35mm(buffer) {
  try {
    return focalOf(new DataView(buffer));
  } catch (error) {
    if (error instanceof RangeError) return 0; // Damaged: an image may be healthy without it.
    throw error;
  }
}

function focalOf(view) {
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return 0;
  for (let at = 2; view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
    const marker = view.getUint8(at + 1);
    if (marker === START_OF_SCAN) return 0;
    if (marker === APP1 && view.getUint32(at + 4) === EXIF) return focalInTiff(view, at + 10);
  }
  return 0;
}

function focalInTiff(view, start) {
  const isLittle = view.getUint16(start) === 0x4949;
  const folder = entry(
    view,
    start,
    start + view.getUint32(start + 4, isLittle),
    EXIF_FOLDER,
    isLittle,
  );
  return folder ? entry(view, start, start + folder, FOCAL_35MM, isLittle) : 0;
}

// The number of a tag in a folder of EXIF; 0 if it has none.
function entry(view, start, folder, tag, isLittle) {
  for (let i = 0; i < view.getUint16(folder, isLittle); i++) {
    const at = folder + 2 + 12 * i;
    if (view.getUint16(at, isLittle) !== tag) continue;
    const isShort = view.getUint16(at + 2, isLittle) === SHORT;
    return isShort ? view.getUint16(at + 8, isLittle) : view.getUint32(at + 8, isLittle);
  }
  return 0;
}
