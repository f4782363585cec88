// Where images come from: a camera, a video, a photo.
import { focal35mm } from "./exif.js";

const CAMERA = {
  audio: false,
  video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" },
};
// Larger images are reduced to this longer side.
const MAX_PHOTO_PX = 4096,
  MAX_FRAME_PX = 1280;
const REASONS = {
  NotAllowedError:
    "The camera was refused: allow it in the browser's address bar and start it again, or open a " +
    "photo or a video.",
  NotFoundError: "No camera was found: connect one, or open a photo or a video.",
  NotReadableError: "The camera does not deliver images: another program may be using it.",
};

// The video element of the user's camera, playing.
export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("Cameras can be used only at https:// or localhost: open a photo or a video.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(CAMERA);
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  return playing((video) => {
    video.srcObject = stream;
  }, "camera");
}

// The video element of a file, playing from its start.
export function openVideo(file) {
  return playing((video) => {
    video.src = URL.createObjectURL(file);
  }, file.name);
}

async function playing(connect, name) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  connect(video);
  try {
    await video.play();
  } catch {
    close(video);
    throw new Error(`${name}: this browser cannot play it; try an .mp4 or .webm video.`);
  }
  return video;
}

// Ends a camera's stream, or frees a file.
export function close(video) {
  video.pause();
  video.srcObject?.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
}

// Its next frame's time in seconds; null at the end.
export function nextFrame(video) {
  return new Promise((resolve) => {
    video.addEventListener("ended", () => resolve(null), { once: true });
    video.requestVideoFrameCallback((now, { mediaTime }) =>
      resolve(video.srcObject ? now / 1000 : mediaTime),
    );
  });
}

// A photo, upright: { bitmap, focalMm }; focalMm is 0 if its EXIF data do not give it.
export async function openPhoto(file) {
  const buffer = await file.arrayBuffer();
  try {
    const bitmap = await createImageBitmap(new Blob([buffer]), { colorSpaceConversion: "none" });
    return { bitmap, focalMm: focal35mm(buffer) };
  } catch {
    throw new Error(`${file.name}: this browser cannot read it; try a JPEG or PNG image.`);
  }
}

// Draws a video's frame or a photo on the canvas, and returns its pixels.
export function readPixels(source, canvas) {
  const width = source.videoWidth ?? source.width,
    height = source.videoHeight ?? source.height;
  const limit = source.videoWidth ? MAX_FRAME_PX : MAX_PHOTO_PX;
  const scale = Math.min(1, limit / Math.max(width, height));
  const size = [Math.round(scale * width), Math.round(scale * height)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, ...size);
  return context.getImageData(0, 0, ...size);
}
