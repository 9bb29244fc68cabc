// An orbit viewer for triangle meshes: WebGL, no library. One scene is the JSON beside a canvas:
// {low, step, faces: {name: base64}, wide, layers: [{name, colour, faces, frames: [base64]}],
//  labels, interval}. Positions are uint16 multiples of `step` above `low`, in metres, y down, z forward.
"use strict";
(function () {
  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  // Viewer axes: x right, y up, z towards the eye.
  function positions(text, low, step) {
    const q = new Uint16Array(bytes(text)), out = new Float32Array(q.length);
    for (let i = 0; i < q.length; i += 3) {
      out[i] = low[0] + q[i] * step;
      out[i + 1] = -(low[1] + q[i + 1] * step);
      out[i + 2] = -(low[2] + q[i + 2] * step);
    }
    return out;
  }

  function normals(p, f) {
    const n = new Float32Array(p.length);
    for (let i = 0; i < f.length; i += 3) {
      const a = 3 * f[i], b = 3 * f[i + 1], c = 3 * f[i + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const k of [a, b, c]) { n[k] += x; n[k + 1] += y; n[k + 2] += z; }
    }
    return n;
  }

  const VERTEX = `
    attribute vec3 p; attribute vec3 n; uniform vec3 middle; uniform vec4 turn; uniform vec3 lens;
    uniform vec3 pan; uniform float lift; varying vec3 normal; varying vec3 place; varying vec2 ground;
    vec3 spin(vec3 v) {
      v = vec3(turn.x * v.x + turn.y * v.z, v.y, turn.x * v.z - turn.y * v.x);
      return vec3(v.x, turn.z * v.y - turn.w * v.z, turn.w * v.y + turn.z * v.z);
    }
    void main() {
      normal = spin(n); ground = n.xz; place = spin(p + vec3(0.0, lift, 0.0) - middle) + pan; place.z -= lens.x;
      float near = lens.x * 0.02, far = lens.x * 20.0;
      gl_Position = vec4(place.x * lens.y, place.y * lens.z,
        -place.z * (far + near) / (far - near) - 2.0 * far * near / (far - near), -place.z);
    }`;
  const FRAGMENT = `
    precision mediump float; uniform vec3 colour; uniform float shadow;
    varying vec3 normal; varying vec3 place; varying vec2 ground;
    void main() {
      if (shadow > 0.0) {
        float fade = max(0.0, 1.0 - dot(ground, ground));
        gl_FragColor = vec4(0.0, 0.0, 0.0, shadow * fade * fade); return;
      }
      vec3 view = normalize(-place), n = normalize(normal);
      n -= 2.0 * min(dot(n, view), 0.0) * view;
      vec3 key = normalize(vec3(-0.45, 0.75, 0.80));
      float light = 0.17 + 0.16 * (0.5 + 0.5 * n.y) + 0.80 * max(dot(n, key), 0.0)
        + 0.24 * max(dot(n, normalize(vec3(0.9, 0.1, 0.55))), 0.0);
      float shine = 0.07 * pow(max(dot(n, normalize(view + key)), 0.0), 24.0);
      gl_FragColor = vec4(sqrt(min(colour * colour * light + shine, 1.0)), 1.0);
    }`;

  function program(gl) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  }

  function start(root) {
    const scene = JSON.parse(root.querySelector("script").textContent);
    const canvas = root.querySelector("canvas");
    const gl = canvas.getContext("webgl", { antialias: true, premultipliedAlpha: false });
    if (!gl || (scene.wide && !gl.getExtension("OES_element_index_uint"))) {
      root.classList.add("failed");
      return;
    }
    const Index = scene.wide ? Uint32Array : Uint16Array;
    const kind = scene.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT;
    const shader = program(gl);
    gl.useProgram(shader);
    const at = (name) => gl.getUniformLocation(shader, name);
    const uniform = {};
    for (const name of ["middle", "turn", "lens", "pan", "lift", "colour", "shadow"]) {
      uniform[name] = at(name);
    }
    const attribute = { p: gl.getAttribLocation(shader, "p"), n: gl.getAttribLocation(shader, "n") };
    gl.enableVertexAttribArray(attribute.p);
    gl.enableVertexAttribArray(attribute.n);

    function buffer(data, target) {
      const made = gl.createBuffer();
      gl.bindBuffer(target, made);
      gl.bufferData(target, data, gl.STATIC_DRAW);
      return made;
    }
    const faces = {};
    for (const [name, text] of Object.entries(scene.faces)) {
      const data = new Index(bytes(text));
      faces[name] = { data, count: data.length, buffer: buffer(data, gl.ELEMENT_ARRAY_BUFFER) };
    }
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    const layers = scene.layers.map((layer) => ({ ...layer, frames: layer.frames.map((text) => {
      const p = positions(text, scene.low, scene.step);
      let ground = Infinity;
      for (let i = 1; i < p.length; i += 3) ground = Math.min(ground, p[i]);
      for (let i = 0; i < p.length; i++) {
        low[i % 3] = Math.min(low[i % 3], p[i]);
        high[i % 3] = Math.max(high[i % 3], p[i]);
      }
      const n = normals(p, faces[layer.faces].data);
      return { p: buffer(p, gl.ARRAY_BUFFER), n: buffer(n, gl.ARRAY_BUFFER), ground };
    }) }));
    const middle = low.map((v, i) => (v + high[i]) / 2);
    const half = low.map((v, i) => (high[i] - v) / 2);
    const radius = Math.hypot(...half), around = Math.hypot(half[0], half[2]);

    // The shadow: a square on the floor whose "normals" hold its own coordinates.
    const r = 0.45 * radius, y = 0;
    const [cx, , cz] = middle;
    const floor = {
      p: buffer(new Float32Array([cx - r, y, cz - r, cx + r, y, cz - r, cx - r, y, cz + r,
        cx + r, y, cz + r]), gl.ARRAY_BUFFER),
      n: buffer(new Float32Array([-1, 0, -1, 1, 0, -1, -1, 0, 1, 1, 0, 1]), gl.ARRAY_BUFFER),
    };

    const home = { yaw: 0.45, pitch: 0.12, zoom: 1, x: 0, y: 0 };
    let eye = { ...home }, frame = scene.labels.length - 1, dirty = true, seen = true;
    const shown = layers.map((layer) => !layer.hidden);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let turning = !calm, playing = false, last = 0, played = 0;

    function draw() {
      const ratio = Math.min(devicePixelRatio || 1, 2);
      const width = Math.round(canvas.clientWidth * ratio);
      const height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width; canvas.height = height;
      }
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      // Far enough for the cylinder that the scene fills as it turns.
      const tan = 0.32, fit = Math.max(half[1], around * height / width) / tan;
      const distance = (1.12 * fit + around) / eye.zoom;
      gl.uniform3fv(uniform.middle, middle);
      gl.uniform4f(uniform.turn, Math.cos(eye.yaw), Math.sin(eye.yaw), Math.cos(eye.pitch),
        Math.sin(eye.pitch));
      gl.uniform3f(uniform.lens, distance, height / width / tan, 1 / tan);
      gl.uniform3f(uniform.pan, eye.x * radius, eye.y * radius, 0);
      const bind = (mesh) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh.p);
        gl.vertexAttribPointer(attribute.p, 3, gl.FLOAT, false, 0, 0);
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh.n);
        gl.vertexAttribPointer(attribute.n, 3, gl.FLOAT, false, 0, 0);
      };
      gl.disable(gl.BLEND);
      gl.uniform1f(uniform.shadow, 0);
      gl.uniform1f(uniform.lift, 0);
      let ground = Infinity;
      layers.forEach((layer, i) => {
        if (!shown[i]) return;
        const mesh = layer.frames[Math.min(frame, layer.frames.length - 1)];
        ground = Math.min(ground, mesh.ground);
        bind(mesh);
        gl.uniform3fv(uniform.colour, layer.colour);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faces[layer.faces].buffer);
        gl.drawElements(gl.TRIANGLES, faces[layer.faces].count, kind, 0);
      });
      if (ground === Infinity) return;
      gl.enable(gl.BLEND);
      gl.uniform1f(uniform.lift, ground);
      gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      bind(floor);
      gl.uniform1f(uniform.shadow, 0.24);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }

    function tick(now) {
      const passed = Math.min(now - last, 100);
      last = now;
      if (seen && turning) { eye.yaw += passed * 0.00035; dirty = true; }
      if (seen && playing && (played += passed) > scene.interval) {
        played = Math.min(played - scene.interval, scene.interval);
        setFrame((frame + 1) % scene.labels.length);
      }
      if (seen && dirty) { dirty = false; draw(); }
      requestAnimationFrame(tick);
    }

    // Controls.
    const slider = root.querySelector("input[type=range]"), label = root.querySelector("output");
    function setFrame(value) {
      frame = value;
      if (slider) { slider.value = value; label.textContent = scene.labels[value]; }
      dirty = true;
    }
    const play = root.querySelector("button.play");
    if (slider) {
      slider.addEventListener("input", () => { playing = false; mark(); setFrame(+slider.value); });
      play.addEventListener("click", () => { playing = !playing; mark(); });
    }
    function mark() {
      play.textContent = playing ? "\u275a\u275a" : "\u25b6";
      play.setAttribute("aria-label", playing ? "pause" : "play");
    }
    root.querySelectorAll("button.layer").forEach((button, i) => {
      button.setAttribute("aria-pressed", shown[i]);
      button.addEventListener("click", () => {
        shown[i] = !shown[i];
        button.setAttribute("aria-pressed", shown[i]);
        dirty = true;
      });
    });

    const fingers = new Map();
    function spread() {
      const [a, b] = [...fingers.values()];
      return { size: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    }
    const zoomTo = (value) => { eye.zoom = Math.max(0.4, Math.min(12, value)); };
    canvas.addEventListener("pointerdown", (event) => {
      turning = false;
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const finger = fingers.get(event.pointerId);
      if (!finger) return;
      const before = fingers.size === 2 ? spread() : null;
      const dx = event.clientX - finger.x, dy = event.clientY - finger.y;
      finger.x = event.clientX; finger.y = event.clientY;
      const unit = 1.4 / canvas.clientHeight / eye.zoom;
      if (before) {
        const after = spread();
        zoomTo(eye.zoom * after.size / Math.max(before.size, 1));
        eye.x += (after.x - before.x) * unit; eye.y -= (after.y - before.y) * unit;
      } else if (event.shiftKey || event.buttons & 2) {
        eye.x += dx * unit; eye.y -= dy * unit;
      } else {
        eye.yaw += dx * 0.009;
        eye.pitch = Math.max(-1.5, Math.min(1.5, eye.pitch + dy * 0.009));
      }
      dirty = true;
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    // The wheel scrolls the page until the viewer has been clicked.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      zoomTo(eye.zoom * Math.exp(-event.deltaY * 0.0012));
      dirty = true;
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { eye = { ...home }; dirty = true; });
    canvas.addEventListener("keydown", (event) => {
      const act = {
        ArrowLeft: () => (eye.yaw -= 0.12), ArrowRight: () => (eye.yaw += 0.12),
        ArrowUp: () => (eye.pitch = Math.max(-1.5, eye.pitch - 0.12)),
        ArrowDown: () => (eye.pitch = Math.min(1.5, eye.pitch + 0.12)),
        "+": () => zoomTo(eye.zoom * 1.15), "-": () => zoomTo(eye.zoom / 1.15),
        "0": () => (eye = { ...home }),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      turning = false; dirty = true;
      act();
    });
    new ResizeObserver(() => { dirty = true; }).observe(canvas);
    new IntersectionObserver((entries) => {
      seen = entries[entries.length - 1].isIntersecting; dirty = true;
    }).observe(canvas);
    setFrame(frame);
    draw();
    requestAnimationFrame((now) => { last = now; tick(now); });
  }
  document.querySelectorAll(".viewer").forEach(start);
})();
