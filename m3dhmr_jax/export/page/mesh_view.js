// Draws shaded meshes with WebGL 2.
//
// A mesh is {vertices: flat, faces: flat, counter-clockwise seen from outside, colour: RGB in
// [0, 1]}; axes as a camera's: x right, y down, z forward, metres. Matrices are flat, by columns.

const NEAR_M = 0.02;
const FAR_M = 20;
const VERTEX_SHADER = `#version 300 es
uniform mat4 viewFromWorld, clipFromView;
in vec3 vertex, normal;
out vec3 viewNormal;
void main() {
  viewNormal = mat3(viewFromWorld) * normal;
  gl_Position = clipFromView * viewFromWorld * vec4(vertex, 1.0);
}`;
// The studio light of visualize/mesh.py.
const FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform vec3 colour;
in vec3 viewNormal;
out vec4 pixel;
void main() {
  vec3 n = normalize(viewNormal);
  float key = max((dot(n, normalize(vec3(-0.55, -0.75, -0.85))) + 0.25) / 1.25, 0.0);
  float fill = max(dot(n, normalize(vec3(0.9, 0.1, -0.5))), 0.0);
  float sky = 0.5 - 0.5 * n.y;
  float rim = 1.0 - clamp(-n.z, 0.0, 1.0);
  float light = (0.32 + 0.62 * key + 0.16 * fill + 0.16 * sky) * (1.0 - 0.4 * rim * rim * rim);
  float shine = pow(max(dot(n, normalize(vec3(-0.3, -0.42, -0.95))), 0.0), 16.0);
  vec3 lit = light * colour + 0.1 * shine;
  if (n.z > 0.15) lit = (0.5 + 0.3 * sky) * vec3(0.42, 0.45, 0.52);
  pixel = vec4(lit, 1.0);
}`;

// A canvas with meshes; throws an Error without WebGL 2.
export class MeshView {
  #gl;
  #uniforms = {};
  #vertices;
  #normals;
  #faces;

  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser has no WebGL 2: only skeletons are drawn.");
    this.#gl = gl;
    const program = linked(gl);
    gl.useProgram(program);
    for (const name of ["viewFromWorld", "clipFromView", "colour"]) {
      this.#uniforms[name] = gl.getUniformLocation(program, name);
    }
    [this.#vertices, this.#normals] = ["vertex", "normal"].map((name) => {
      const buffer = gl.createBuffer();
      const location = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, 3, gl.FLOAT, false, 0, 0);
      return buffer;
    });
    this.#faces = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.#faces);
    gl.enable(gl.DEPTH_TEST);
  }

  // Replaces what is shown.
  draw(meshes, viewFromWorld, clipFromView) {
    const gl = this.#gl;
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(this.#uniforms.viewFromWorld, false, viewFromWorld);
    gl.uniformMatrix4fv(this.#uniforms.clipFromView, false, clipFromView);
    for (const { vertices, faces, colour } of meshes) {
      gl.uniform3fv(this.#uniforms.colour, colour);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.#vertices);
      gl.bufferData(gl.ARRAY_BUFFER, vertices, gl.DYNAMIC_DRAW);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.#normals);
      gl.bufferData(gl.ARRAY_BUFFER, vertexNormals(vertices, faces), gl.DYNAMIC_DRAW);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.DYNAMIC_DRAW);
      gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_SHORT, 0);
    }
  }
}

function linked(gl) {
  const program = gl.createProgram();
  const shaders = [
    [gl.VERTEX_SHADER, VERTEX_SHADER],
    [gl.FRAGMENT_SHADER, FRAGMENT_SHADER],
  ];
  for (const [kind, source] of shaders) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    throw new Error(`WebGL: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}

// The sum of the normals of each vertex' faces, weighted by area.
function vertexNormals(vertices, faces) {
  const normals = new Float32Array(vertices.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const ux = vertices[b] - vertices[a];
    const uy = vertices[b + 1] - vertices[a + 1];
    const uz = vertices[b + 2] - vertices[a + 2];
    const vx = vertices[c] - vertices[a];
    const vy = vertices[c + 1] - vertices[a + 1];
    const vz = vertices[c + 2] - vertices[a + 2];
    for (const i of [a, b, c]) {
      normals[i] += uy * vz - uz * vy;
      normals[i + 1] += uz * vx - ux * vz;
      normals[i + 2] += ux * vy - uy * vx;
    }
  }
  return normals;
}

// The projection of a camera with this K, for an image of this size.
export function projection(k, width, height) {
  const depth = FAR_M - NEAR_M;
  return [
    (2 * k[0]) / width,
    0,
    0,
    0,
    (2 * k[1]) / width,
    (-2 * k[4]) / height,
    0,
    0,
    (2 * k[2] + 1) / width - 1,
    1 - (2 * k[5] + 1) / height,
    (FAR_M + NEAR_M) / depth,
    1,
    0,
    0,
    (-2 * FAR_M * NEAR_M) / depth,
    0,
  ];
}

export const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
