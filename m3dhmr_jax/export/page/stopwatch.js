// Milliseconds per stage and frames per second, averaged over about the last second.

const MEMORY = 0.9; // Weight of the past in each average.

export class Stopwatch {
  #names;
  #running = {};
  #averages = {};
  #lastMs = 0;
  #frameMs = 0;

  constructor(names) {
    this.#names = names;
    this.restart();
  }

  // Forgets what was measured.
  restart() {
    this.#running = Object.fromEntries(this.#names.map((name) => [name, 0]));
    [this.#averages, this.#lastMs, this.#frameMs] = [{}, 0, 0];
  }

  // The function, its time added to a stage of the frame.
  timed(name, work) {
    return async (...args) => {
      const start = performance.now();
      const result = await work(...args);
      this.#running[name] += performance.now() - start;
      return result;
    };
  }

  // Ends a frame. A stage's average is over the frames that had it: hands are not found in each.
  endFrame() {
    for (const name of this.#names) {
      const ms = this.#running[name];
      this.#running[name] = 0;
      if (ms > 0) this.#averages[name] = average(this.#averages[name], ms);
    }
    const now = performance.now();
    if (this.#lastMs) this.#frameMs = average(this.#frameMs || undefined, now - this.#lastMs);
    this.#lastMs = now;
  }

  // Milliseconds by stage; 0 for one that has not run.
  get ms() {
    return Object.fromEntries(this.#names.map((name) => [name, this.#averages[name] ?? 0]));
  }

  // 0 before the second frame.
  get framesPerSecond() {
    return this.#frameMs ? 1000 / this.#frameMs : 0;
  }
}

function average(before, now) {
  return before === undefined ? now : MEMORY * before + (1 - MEMORY) * now;
}
