// Draws the hands of a frame: over the image, and in 3D.
import { IDENTITY, MeshView, projection } from "./mesh_view.js";
import { Orbit } from "./orbit.js";
import { boneMeshes, drawSkeleton } from "./skeleton.js";

// Of visualize/hands.py: by track; unsure hands are grey.
const COLOURS = [
  [0.74, 0.81, 0.95],
  [0.95, 0.8, 0.62],
  [0.72, 0.9, 0.74],
  [0.88, 0.76, 0.94],
];
const UNSURE_COLOUR = [0.72, 0.72, 0.72];
const BONE_WIDTH = 0.02; // Of the longer side of the hand's box.
const MAX_CANVAS_PX = 2048;

export class Drawing {
  #canvases;
  #overlay = null;
  #view = null;
  #orbit;
  #frame = { hands: [], k: null, width: 4, height: 3 };

  // What is drawn: "mesh", "skeleton" or "both".
  show = "mesh";

  // `canvases`: { overlay, skeletons, orbit }; `warn` is told if meshes cannot be drawn.
  constructor(canvases, warn) {
    this.#canvases = canvases;
    try {
      this.#overlay = new MeshView(canvases.overlay);
      this.#view = new MeshView(canvases.orbit);
    } catch (error) {
      warn(error.message);
    }
    this.#orbit = new Orbit(canvases.orbit, () => this.#drawView());
    new ResizeObserver(() => this.draw()).observe(canvases.orbit);
  }

  set isMirrored(value) {
    this.#orbit.isMirrored = value;
  }

  // Replaces the hands; `isNew`: those of another source.
  update(frame, isNew) {
    this.#frame = frame;
    this.#orbit.follow(
      frame.hands.map((hand) => hand.vertsM),
      isNew,
    );
    this.draw();
  }

  draw() {
    const { hands, k, width, height } = this.#frame;
    const { overlay, skeletons } = this.#canvases;
    const scale = fit(overlay, width, height);
    if (this.#overlay && k) {
      const shown = this.show === "skeleton" ? [] : hands.map(meshOf);
      this.#overlay.draw(shown, IDENTITY, projection(k, width, height));
    }
    [skeletons.width, skeletons.height] = [overlay.width, overlay.height];
    const context = skeletons.getContext("2d");
    context.scale(scale, scale);
    if (this.show !== "mesh" || !this.#overlay) {
      for (const { landmarksPx } of hands) {
        drawSkeleton(context, landmarksPx, BONE_WIDTH * extent(landmarksPx));
      }
    }
    this.#drawView();
  }

  #drawView() {
    const { orbit } = this.#canvases;
    const width = orbit.clientWidth || 4,
      height = orbit.clientHeight || 3;
    fit(orbit, width, height);
    const { hands } = this.#frame;
    // A mesh would hide its bones.
    const meshes =
      this.show === "skeleton"
        ? hands.flatMap((hand) => boneMeshes(hand.jointsM))
        : hands.map(meshOf);
    const k = Orbit.intrinsics(width, height);
    this.#view?.draw(meshes, this.#orbit.viewFromWorld(), projection(k, width, height));
  }
}

function meshOf({ vertsM, faces, track, isUnsure }) {
  const colour = isUnsure ? UNSURE_COLOUR : COLOURS[track % COLOURS.length];
  return { vertices: vertsM, faces, colour };
}

function extent(points) {
  const [xs, ys] = [0, 1].map((d) => points.filter((_, i) => i % 2 === d));
  return Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
}

// Gives a canvas the shape width : height and the sharpness of the screen; returns the scale.
function fit(canvas, width, height) {
  const shown = Math.min(canvas.clientWidth / width, canvas.clientHeight / height) || 1;
  const largest = MAX_CANVAS_PX / Math.max(width, height);
  const scale = Math.min(shown * devicePixelRatio, largest);
  const size = [Math.round(scale * width), Math.round(scale * height)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  return canvas.width / width;
}
