// A scatter plot of up to some 300,000 points in WebGL, with hover, zoom and pan. It knows nothing of tokens.

const VERTEX = `
attribute vec2 place; attribute vec4 color; uniform vec2 scale, shift; uniform float size; varying vec4 shade;
void main() { gl_Position = vec4(place * scale + shift, 0.0, 1.0); gl_PointSize = size; shade = color; }`;
const FRAGMENT = `
precision mediump float; varying vec4 shade;
void main() {
  float far = distance(gl_PointCoord, vec2(0.5));
  if (far > 0.5) discard;
  gl_FragColor = vec4(shade.rgb * shade.a, shade.a);
}`;
const CELLS = 256;
const REACH = 12; // pixels within which a point is hovered
const MOST_ZOOM = 400;

export class Points {
  // Throws if the browser has no WebGL.
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: false, alpha: true, preserveDrawingBuffer: false });
    if (!this.gl) throw new Error("no WebGL");
    this.center = [0, 0];
    this.zoom = 1;
    this.isWaiting = false;
    this.afterDraw = () => {};
    this.#prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.#prepare();
      if (this.places) { this.#fill("place", this.places); this.#fill("color", this.colors); }
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  #prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    [this.scale, this.shift, this.size] = ["scale", "shift", "size"].map((name) => gl.getUniformLocation(program, name));
    this.program = program;
    this.buffers = { place: gl.createBuffer(), color: gl.createBuffer() };
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // Places [2 n], x and y of each point in turn; points that are not finite are not drawn.
  setPlaces(xy) {
    const count = xy.length / 2;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      const x = xy[2 * i], y = xy[2 * i + 1];
      if (!Number.isFinite(x + y)) continue;
      left = Math.min(left, x); right = Math.max(right, x); low = Math.min(low, y); high = Math.max(high, y);
    }
    const half = Math.max(right - left, high - low, 1e-9) / 2;
    this.count = count;
    this.places = new Float32Array(xy.length);
    for (let i = 0; i < count; i++) {
      const x = (xy[2 * i] - (left + right) / 2) / half, y = (xy[2 * i + 1] - (low + high) / 2) / half;
      const isKnown = Number.isFinite(x + y);
      this.places[2 * i] = isKnown ? x : 9;
      this.places[2 * i + 1] = isKnown ? y : 9;
    }
    this.colors = new Uint8Array(4 * count).fill(160);
    this.#index();
    this.#fill("place", this.places);
    this.#fill("color", this.colors);
    this.reset();
  }

  // Points by cells of a grid, so that hovering looks at few of them.
  #index() {
    const cell = (i) => {
      const x = this.places[2 * i], y = this.places[2 * i + 1];
      return x > 1.5 ? -1 : gridCell(x) + CELLS * gridCell(y);
    };
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < this.count; i++) if (cell(i) >= 0) this.starts[cell(i) + 1]++;
    for (let i = 0; i < CELLS * CELLS; i++) this.starts[i + 1] += this.starts[i];
    this.order = new Uint32Array(this.starts[CELLS * CELLS]);
    const next = this.starts.slice();
    for (let i = 0; i < this.count; i++) if (cell(i) >= 0) this.order[next[cell(i)]++] = i;
  }

  setColors(colors) {
    this.colors = colors;
    this.#fill("color", colors);
    this.draw();
  }

  #fill(name, data) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(place);
    if (name === "place") gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
    else gl.vertexAttribPointer(place, 4, gl.UNSIGNED_BYTE, true, 0, 0);
  }

  has(i) { return i >= 0 && i < this.count && this.places[2 * i] < 1.5; }

  #scale() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const unit = 0.47 * Math.min(width, height) * this.zoom; // pixels for a length of 1
    return { width, height, unit };
  }

  // The pixel of a point, from the left upper corner of the canvas.
  pixelOf(i) {
    const { width, height, unit } = this.#scale();
    return [width / 2 + (this.places[2 * i] - this.center[0]) * unit,
      height / 2 - (this.places[2 * i + 1] - this.center[1]) * unit];
  }

  #placeAt(x, y) {
    const { width, height, unit } = this.#scale();
    return [this.center[0] + (x - width / 2) / unit, this.center[1] - (y - height / 2) / unit];
  }

  // The point nearest to a pixel, or -1.
  at(x, y) {
    if (!this.count) return -1;
    const [px, py] = this.#placeAt(x, y), reach = REACH / this.#scale().unit;
    let best = -1, least = reach * reach;
    for (let row = gridCell(py - reach); row <= gridCell(py + reach); row++) {
      for (let column = gridCell(px - reach); column <= gridCell(px + reach); column++) {
        const cell = column + CELLS * row;
        for (let at = this.starts[cell]; at < this.starts[cell + 1]; at++) {
          const i = this.order[at];
          const far = (this.places[2 * i] - px) ** 2 + (this.places[2 * i + 1] - py) ** 2;
          if (far < least) { least = far; best = i; }
        }
      }
    }
    return best;
  }

  // The ids of the points nearest to a point on the map.
  nearestTo(i, k) {
    const [x, y] = [this.places[2 * i], this.places[2 * i + 1]];
    const far = (j) => (this.places[2 * j] - x) ** 2 + (this.places[2 * j + 1] - y) ** 2;
    let best = [];
    for (const j of this.order) {
      if (j === i || (best.length === k && far(j) >= far(best[k - 1]))) continue;
      best.push(j);
      best.sort((a, b) => far(a) - far(b));
      best = best.slice(0, k);
    }
    return best;
  }

  zoomAt(x, y, factor) {
    const before = this.#placeAt(x, y);
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.5), MOST_ZOOM);
    const after = this.#placeAt(x, y);
    this.center = [this.center[0] + before[0] - after[0], this.center[1] + before[1] - after[1]];
    this.draw();
  }

  pan(dx, dy) {
    const { unit } = this.#scale();
    this.center = [this.center[0] - dx / unit, this.center[1] + dy / unit];
    this.draw();
  }

  reset() {
    this.center = [0, 0];
    this.zoom = 1;
    this.draw();
  }

  // Bring a point into view if it is not.
  show(i) {
    const [x, y] = this.pixelOf(i), { width, height } = this.#scale();
    if (x < 20 || y < 20 || x > width - 20 || y > height - 20) {
      this.center = [this.places[2 * i], this.places[2 * i + 1]];
    }
    this.draw();
  }

  draw() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.#paint();
      this.afterDraw();
    });
  }

  #paint() {
    const { gl, canvas } = this, { width, height, unit } = this.#scale(), ratio = devicePixelRatio || 1;
    if (!width || !this.count) return;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const [sx, sy] = [(2 * unit) / width, (2 * unit) / height];
    gl.uniform2f(this.scale, sx, sy);
    gl.uniform2f(this.shift, -this.center[0] * sx, -this.center[1] * sy);
    const dense = Math.min(6, Math.max(2.2, 500 / Math.sqrt(this.count)));
    gl.uniform1f(this.size, Math.min(12, dense * this.zoom ** 0.35) * ratio);
    gl.drawArrays(gl.POINTS, 0, this.count);
  }
}

const gridCell = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));
