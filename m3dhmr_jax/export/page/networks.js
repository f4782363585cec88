// The networks of the page in onnxruntime-web: WebAssembly on one thread, or WebGPU where it gives
// the same numbers sooner.
import { cropPixels } from "./pixels.js";
import { LANDMARK_IMAGE_PX, PALM_IMAGE_PX } from "./squares.js";

// Largest difference between WebGPU and WebAssembly, as a fraction of an output's largest value.
const AGREEMENT = 1e-3;
const TIMED_RUNS = 3;
// The smallest module with an instruction of WebAssembly SIMD.
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
]);

// What the browser lacks, in words; "" if nothing.
export function missingFeature() {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD_MODULE)) {
    return "This browser has no WebAssembly SIMD, which the page computes with: use a newer one.";
  }
  return "";
}

// Loads the runtime and the networks of the page.
//
// `hand` is {file, size} of a hand network, or null. Returns {palms, landmarks, hand}, asynchronous
// functions of an image and the map to the crop that they see, and `backends`, where each runs.
export async function loadNetworks(hand, say) {
  const gpu = "Suspending" in WebAssembly && (await navigator.gpu?.requestAdapter());
  // One of the two builds is fetched: that for WebGPU can do both.
  const ort = await import(gpu ? "./ort.jspi.min.mjs" : "./ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  ort.env.wasm.numThreads = 1;
  const backends = {};
  const load = async (name, file, size) => {
    say(`loading ${name}`);
    const network = new Network(ort, await fetchBytes(file), size);
    backends[name] = await network.open(Boolean(gpu));
    return network;
  };
  const palms = await load("palm detector", "palms.onnx", PALM_IMAGE_PX);
  const landmarks = await load("landmark network", "landmarks.onnx", LANDMARK_IMAGE_PX);
  const hands = hand && (await load("hand network", hand.file, hand.size));
  return {
    palms: async (image, cropFromImage) => {
      const { offsets_px, logits } = await palms.run(image, cropFromImage);
      return { offsets: offsets_px, logits };
    },
    landmarks: async (image, cropFromImage) => {
      const found = await landmarks.run(image, cropFromImage);
      return {
        landmarks: found.landmarks_px,
        joints: found.joints_m,
        presence: found.presence[0],
        right: found.right_probability[0],
      };
    },
    hand: hand && ((image, cropFromImage) => hands.run(image, cropFromImage)),
    backends,
  };
}

async function fetchBytes(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} could not be loaded (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

class Network {
  #ort;
  #bytes;
  #size;
  #session;

  constructor(ort, bytes, size) {
    [this.#ort, this.#bytes, this.#size] = [ort, bytes, size];
  }

  // Creates the session; returns where it runs, in words.
  async open(hasGpu) {
    const onCpu = await this.#create("wasm");
    this.#session = onCpu;
    const backend = hasGpu ? await this.#tryGpu(onCpu) : "WebAssembly";
    this.#bytes = null;
    return backend;
  }

  async #tryGpu(onCpu) {
    try {
      const onGpu = await this.#create("webgpu");
      const pixels = testCrop(this.#size);
      const [expected, cpuMs] = await this.#time(onCpu, pixels);
      const [found, gpuMs] = await this.#time(onGpu, pixels);
      const difference = Math.max(
        ...Object.keys(expected).map((name) => relativeDifference(found[name], expected[name])),
      );
      if (!(difference <= AGREEMENT)) {
        return `WebAssembly (WebGPU differs by ${(100 * difference).toFixed(1)} %)`;
      }
      if (gpuMs >= cpuMs) {
        return `WebAssembly (${cpuMs.toFixed(0)} ms; WebGPU agrees but takes ${gpuMs.toFixed(0)})`;
      }
      this.#session = onGpu;
      return "WebGPU";
    } catch (error) {
      return `WebAssembly (WebGPU failed: ${error.message})`;
    }
  }

  #create(provider) {
    return this.#ort.InferenceSession.create(this.#bytes, { executionProviders: [provider] });
  }

  async #time(session, pixels) {
    let outputs = await this.#run(session, pixels);
    let shortest = Infinity;
    for (let i = 0; i < TIMED_RUNS; i++) {
      const start = performance.now();
      outputs = await this.#run(session, pixels);
      shortest = Math.min(shortest, performance.now() - start);
    }
    return [outputs, shortest];
  }

  // The outputs for a crop of an image, flat arrays by name.
  run(image, cropFromImage) {
    return this.#run(this.#session, cropPixels(image, cropFromImage, this.#size));
  }

  async #run(session, pixels) {
    const shape = [1, this.#size, this.#size, 3];
    const input = new this.#ort.Tensor("uint8", pixels, shape);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const arrays = {};
    for (const [name, tensor] of Object.entries(outputs)) arrays[name] = await tensor.getData();
    return arrays;
  }
}

// Smooth blotches: no hand, but every layer has something to do.
function testCrop(size) {
  const pixels = new Uint8Array(size * size * 3);
  for (let i = 0; i < pixels.length; i++) {
    const [x, y, c] = [Math.floor(i / 3) % size, Math.floor(i / 3 / size), i % 3];
    pixels[i] = 127.5 + 127 * Math.sin(x / 17 + c) * Math.cos(y / 23 - c);
  }
  return pixels;
}

function relativeDifference(found, expected) {
  let largest = 1e-6;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    difference = Math.max(difference, Math.abs(found[i] - expected[i]));
  }
  return difference / largest;
}
