// A camera that pointer, wheel and arrow keys turn about the hands.

const RAD_PER_PX = 0.01;
const RAD_PER_KEY = 0.1;
const ZOOM_PER_PX = 0.001;
const MAX_PITCH = 1.5;
const FOV_DEG = 35;
const ROOM = 0.9; // Of the view around the hands, in radii of their box.
const FOLLOW = 0.25; // How much of their way the centre and the radius move in a frame.

export class Orbit {
  #yaw = 0.7;
  #pitch = 0.25;
  #zoom = 1;
  #centre = null;
  #radius = 0.1;
  isMirrored = false;

  // `redraw` is called after the user has turned the view.
  constructor(canvas, redraw) {
    const turn = (dx, dy) => {
      this.#yaw += (this.isMirrored ? -1 : 1) * dx;
      this.#pitch = Math.min(Math.max(this.#pitch + dy, -MAX_PITCH), MAX_PITCH);
      redraw();
    };
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      turn(-RAD_PER_PX * event.movementX, RAD_PER_PX * event.movementY);
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.#zoom = Math.min(Math.max(this.#zoom * Math.exp(ZOOM_PER_PX * event.deltaY), 0.3), 4);
        redraw();
      },
      { passive: false },
    );
    const keys = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      turn(...keys[event.key].map((step) => RAD_PER_KEY * step));
    });
  }

  // Moves towards the middle of flat arrays of points; `isNew`: at once.
  follow(clouds, isNew) {
    const low = [Infinity, Infinity, Infinity];
    const high = [-Infinity, -Infinity, -Infinity];
    for (const points of clouds) {
      for (let i = 0; i < points.length; i++) {
        low[i % 3] = Math.min(low[i % 3], points[i]);
        high[i % 3] = Math.max(high[i % 3], points[i]);
      }
    }
    if (!clouds.length) return;
    const centre = low.map((x, d) => (x + high[d]) / 2);
    const radius = Math.hypot(...low.map((x, d) => high[d] - x)) / 2;
    const step = isNew || !this.#centre ? 1 : FOLLOW;
    const from = this.#centre ?? centre;
    this.#centre = from.map((x, d) => x + step * (centre[d] - x));
    this.#radius += step * (radius - this.#radius);
  }

  // The map from camera space to the view's axes, by columns.
  viewFromWorld() {
    const [cy, sy] = [Math.cos(this.#yaw), Math.sin(this.#yaw)];
    const [cp, sp] = [Math.cos(this.#pitch), Math.sin(this.#pitch)];
    const rows = [
      [cy, 0, -sy],
      [sp * sy, cp, sp * cy],
      [cp * sy, -sp, cp * cy],
    ];
    const centre = this.#centre ?? [0, 0, 0];
    const distance = (ROOM * this.#zoom * this.#radius) / Math.tan((FOV_DEG * Math.PI) / 360);
    const offset = rows.map(
      (row, d) => (d === 2 ? distance : 0) - row.reduce((sum, x, i) => sum + x * centre[i], 0),
    );
    return [
      ...rows.map((row) => row[0]),
      0,
      ...rows.map((row) => row[1]),
      0,
      ...rows.map((row) => row[2]),
      0,
      ...offset,
      1,
    ];
  }

  // K of the view, for a canvas of this size.
  static intrinsics(width, height) {
    const focal = Math.min(width, height) / 2 / Math.tan((FOV_DEG * Math.PI) / 360);
    return [focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1];
  }
}
