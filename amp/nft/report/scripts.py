"""Frame, style and script of the page, and the sphere that its script draws for each atom."""

from __future__ import annotations

import numpy as np


def sphere(times: int = 2) -> dict[str, list]:
    """Return corners and triangles of a sphere.

    Parameters
    ----------
    times : int
        How often the faces of an icosahedron are divided in four.

    Returns
    -------
    dict
        'points' and 'faces', lists of three numbers each.
    """
    points, faces = _sphere(times)
    return {"points": points.round(4).tolist(), "faces": faces.tolist()}


def _sphere(times: int) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and triangles of an icosahedron whose faces are divided in four repeatedly; it looks like a sphere."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = np.array([np.roll(corner, shift) for shift in range(3) for corner in corners])
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = np.abs(distance - 2.0) < 1e-9
    faces = [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    mesh = points, np.array(faces)
    for _ in range(times):
        mesh = _outward(*_divide(*mesh))
    return mesh


def _divide(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide each triangle in four."""
    pairs = sorted({tuple(sorted(pair)) for face in faces.tolist() for pair in (face[:2], face[1:], face[::2])})
    middle = {pair: len(points) + k for k, pair in enumerate(pairs)}
    points = np.vstack([points, [(points[a] + points[b]) / 2 for a, b in pairs]])
    new = []
    for a, b, c in faces.tolist():
        ab, bc, ac = (middle[tuple(sorted(pair))] for pair in ((a, b), (b, c), (a, c)))
        new += [(a, ab, ac), (b, ab, bc), (c, ac, bc), (ab, bc, ac)]
    return points, np.array(new)


def _outward(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on the unit sphere, each triangle oriented with its normal outward."""
    points = points / np.linalg.norm(points, axis=1)[:, None]
    a, b, c = points[faces.T]
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points, faces


DRAW = """
const SPHERES = 1500, SHADOW = "#8a8f98", ELEMENTS = "elements", CHUNKS = "chunks, by iteration";
const ball = JSON.parse(document.getElementById("sphere").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const ink = () => getComputedStyle(document.body).color;
function unpack(text, kind) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new kind(bytes.buffer);
}
function read(scene) {
  scene.x = scene.x.map(text => unpack(text, Float32Array));
  scene.kind = unpack(scene.kind, Uint8Array);
  for (const name in scene.values) scene.values[name] = unpack(scene.values[name], Float32Array);
  if (scene.taken) scene.values[CHUNKS] = Float32Array.from(unpack(scene.taken, Int16Array));
  scene.delta = Object.values(scene.values)[0];
  scene.order = Array.from(scene.delta.keys()).sort((a, b) => scene.delta[b] - scene.delta[a]);
  return scene;
}
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
}
function shades(scene, by) {  // values in colour, logarithms where they spread over more than a factor of thirty
  const values = scene.values[by], [low, high] = extent(values);
  if (by === CHUNKS) return {values, low: 0, high: Math.max(high, 1), bar: {dtick: Math.max(Math.floor(high / 8), 1)}};
  const bar = {};
  if (!(low > 0 && high > 30 * low)) return {values, low: low, high: high > low ? high : low + 1, bar};
  bar.tickvals = []; bar.ticktext = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const factor of [1, 2, 5]) {
    const value = factor * 10 ** power;
    if (value >= low && value <= high) { bar.tickvals.push(Math.log10(value)); bar.ticktext.push(String(+value.toPrecision(2))); }
  }
  return {values: values.map(Math.log10), low: Math.log10(low), high: Math.log10(high), bar};
}
function chosen(scene, show, by) {
  const some = show === "all" ? scene.order : show === "chunks" ? scene.order.filter(k => scene.values[CHUNKS][k] >= 0)
    : scene.order.slice(0, Math.max(Math.floor(scene.n * show), 1));
  return by === CHUNKS ? some.filter(k => scene.values[CHUNKS][k] >= 0) : some;
}
function pick(values, some) { return Float32Array.from(some, k => values[k]); }
function marks(scene, some, marker) {
  return {type: "scatter3d", mode: "markers", x: pick(scene.x[0], some), y: pick(scene.x[1], some), z: pick(scene.x[2], some), marker,
    text: some.map(k => scene.elements[scene.kind[k]].symbol + " " + k), customdata: pick(scene.delta, some),
    hovertemplate: "%{text}<br>δ = %{customdata:.3g} eV/Å<extra></extra>"};
}
function balls(scene, some, colour) {
  const n = ball.points.length, m = ball.faces.length, xyz = [0, 1, 2].map(() => new Float32Array(n * some.length));
  const ijk = [0, 1, 2].map(() => new Int32Array(m * some.length));
  some.forEach((atom, place) => {
    const radius = scene.elements[scene.kind[atom]].radius;
    for (let p = 0; p < n; p++) for (let a = 0; a < 3; a++) xyz[a][place * n + p] = scene.x[a][atom] + radius * ball.points[p][a];
    for (let f = 0; f < m; f++) for (let a = 0; a < 3; a++) ijk[a][place * m + f] = place * n + ball.faces[f][a];
  });
  const shade = p => colour.values[some[Math.floor(p / n)]];
  const length = n * some.length;
  const intensity = colour.values ? {intensity: Float32Array.from({length}, (_, p) => shade(p))} : {intensity: new Float32Array(length),
    colorscale: [[0, colour.mesh.color], [1, colour.mesh.color]], cmin: 0, cmax: 1, showscale: false};  // plotly keeps an old intensity
  return {type: "mesh3d", x: xyz[0], y: xyz[1], z: xyz[2], i: ijk[0], j: ijk[1], k: ijk[2], ...intensity, ...colour.mesh, hoverinfo: "skip",
    lighting: {ambient: 0.72, diffuse: 0.5, specular: 0.15, roughness: 0.6, fresnel: 0.1}, lightposition: {x: 500, y: -1500, z: 1200}};
}
function atoms(scene, some, colour) {
  if (scene.n <= SPHERES) return [balls(scene, some, colour), marks(scene, some, {size: 10, opacity: 0})];
  const size = Math.min(Math.max(160 / Math.cbrt(scene.n), 2.5), 8) * (some.length < scene.n / 50 ? 2 : 1);
  const shade = colour.values ? {color: pick(colour.values, some)} : {};
  return [marks(scene, some, {size, line: {width: 0}, ...colour.mesh, ...shade})];
}
function traces(scene, by, show) {
  const some = chosen(scene, show, by), found = [];
  for (const [from, to] of scene.edges) found.push({type: "scatter3d", mode: "lines", x: [from[0], to[0]], y: [from[1], to[1]],
    z: [from[2], to[2]], hoverinfo: "skip", line: {color: SHADOW, width: 2}});
  if (some.length < scene.n) {
    const step = Math.ceil(scene.n / 20000), rest = scene.order.filter((_, place) => place % step === 0);
    found.push({...marks(scene, rest, {size: Math.min(Math.max(160 / Math.cbrt(scene.n), 1.5), 10), color: SHADOW,
      opacity: scene.n < 5000 ? 0.12 : 0.04, line: {width: 0}}), hovertemplate: undefined, hoverinfo: "skip"});
  }
  if (by !== ELEMENTS) {
    const {values, low, high, bar} = shades(scene, by);
    const mesh = {colorscale: "Viridis", cmin: low, cmax: high, showscale: true, colorbar: {...bar, len: 0.8, thickness: 16}};
    return found.concat(atoms(scene, some, {values, mesh}));
  }
  scene.elements.forEach((element, kind) => {
    const here = some.filter(k => scene.kind[k] === kind);
    if (here.length) found.push(...atoms(scene, here, {mesh: {color: element.colour}}));
  });
  return found;
}
function layout(scene) {
  const axis = {visible: false, showspikes: false}, d = scene.distance;
  return {paper_bgcolor: "rgba(0,0,0,0)", margin: {l: 0, r: 0, t: 0, b: 0}, font: {color: ink()}, uirevision: "same", showlegend: false,
    modebar: {bgcolor: "rgba(0,0,0,0)", orientation: "h"},
    scene: {xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", uirevision: "same",
      camera: {eye: {x: 0.45 * d, y: -1.5 * d, z: 0.4 * d}}}};
}
function flat(place, scene, by, show) {  // without WebGL: discs from back to front
  const box = place.getBoundingClientRect(), canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  canvas.width = box.width; canvas.height = box.height;
  const across = k => scene.x[0][k], up = k => scene.x[2][k] + 0.25 * scene.x[1][k];
  const all = scene.order, [l, r] = extent(all.map(across)), [b, t] = extent(all.map(up));
  const scale = Math.min((box.width - 40) / (r - l + 3), (box.height - 40) / (t - b + 3));
  const colour = by === ELEMENTS ? null : shades(scene, by);
  const viridis = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6dcd59", "#b4de2c", "#fde725"];
  for (const k of [...chosen(scene, show, by)].sort((a, b) => scene.x[1][b] - scene.x[1][a])) {
    const element = scene.elements[scene.kind[k]];
    const part = colour ? (colour.values[k] - colour.low) / (colour.high - colour.low) : 0;
    pen.fillStyle = colour ? viridis[Math.round(9 * Math.min(Math.max(part, 0), 1))] : element.colour;
    pen.strokeStyle = SHADOW;
    pen.beginPath();
    const x = box.width / 2 + scale * (across(k) - (l + r) / 2), y = box.height / 2 - scale * (up(k) - (b + t) / 2);
    pen.arc(x, y, scale * element.radius, 0, 7);
    pen.fill(); if (scene.n <= SPHERES) pen.stroke();
  }
  place.replaceChildren(canvas);
}
function choice(form, title, options) {
  const label = document.createElement("label"), select = document.createElement("select");
  for (const [value, name] of options) select.add(new Option(name, value));
  label.append(title + " ", select); form.append(label);
  return select;
}
for (const data of document.querySelectorAll("script.scene-data")) {
  const place = document.getElementById(data.dataset.for), scene = read(JSON.parse(data.textContent));
  const form = document.querySelector(`form[data-for="${data.dataset.for}"]`);
  const by = choice(form, "Colour:", [...Object.keys(scene.values), ELEMENTS].map(name => [name, name]));
  const parts = [["all", "all atoms"], ["0.1", "most uncertain 10 %"]];
  if (scene.n >= 1000) parts.push(["0.01", "most uncertain 1 %"]);
  if (scene.taken) parts.push(["chunks", "centres of chunks"]);
  const show = choice(form, "Show:", parts);
  const key = document.createElement("ul");
  key.className = "legend";
  for (const element of scene.elements) {
    const item = document.createElement("li"), mark = document.createElement("i");
    mark.className = "mark"; mark.style.color = element.colour; item.append(mark, element.symbol); key.append(item);
  }
  place.after(key);
  let webgl = true;
  const draw = () => {
    key.hidden = by.value !== ELEMENTS;
    if (!webgl) return flat(place, scene, by.value, show.value);
    return Plotly.react(place, traces(scene, by.value, show.value), layout(scene), {responsive: true, displaylogo: false})
      .catch(() => { webgl = false; draw(); });
  };
  try { webgl = !!document.createElement("canvas").getContext("webgl"); } catch { webgl = false; }
  form.addEventListener("change", draw);
  dark.addEventListener("change", () => webgl && Plotly.relayout(place, {"font.color": ink()}));
  draw();
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --fg: #1c2127; --soft: #5c6670; --bg: #fbfbfa; --card: #ffffff; --line: #e2e4e8;
  --good: #2e8b57; --caution: #c77f1a; --bad: #c0433a; --none: #6b7480; }
@media (prefers-color-scheme: dark) { :root { --fg: #e4e7eb; --soft: #a3acb8; --bg: #15181c; --card: #1d2126; --line: #343a42;
  --good: #55b983; --caution: #e0a44a; --bad: #e5776f; --none: #98a2ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 80rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; align-items: start;
  grid-auto-flow: dense; }
section, figure { margin: 0; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  min-width: 0; }
section, .wide { grid-column: 1 / -1; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 0 0 .4rem; font-size: 1.05rem; overflow-wrap: anywhere; } h3 { margin: 1rem 0 .3rem; font-size: .95rem; }
section p { margin: 0 0 .6rem; }
.verdict { border-left: .5rem solid var(--none); }
.good { border-left-color: var(--good); } .caution { border-left-color: var(--caution); } .bad { border-left-color: var(--bad); }
.headline { margin: .2rem 0 .6rem; font-size: 1.25rem; font-weight: 600; line-height: 1.35; }
.verdict ul { margin: 0 0 .6rem; padding-left: 1.2rem; } .advice { margin: 0; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem 2rem; } .numbers div { display: flex; flex-direction: column; }
.numbers b { font-size: 1.25rem; } .numbers span, figcaption p { color: var(--soft); font-size: .88rem; }
figcaption p { margin: .4rem 0 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.panels svg { display: block; width: 100%; max-width: 40rem; height: auto; margin: 0 auto; fill: var(--fg); font-family: inherit; }
.grid, .axis, .guide, .line, .dots { fill: none; }
.panels .title { font-weight: 600; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .guide { stroke-dasharray: 5 4; stroke-width: 1.3; }
.line { stroke-width: 1.8; stroke-linejoin: round; } .dots { stroke-width: 6; stroke-linecap: round; }
.many { stroke-width: 3.5; stroke-opacity: .55; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .4rem 0 0; padding: 0; list-style: none; font-size: .88rem; }
.legend[hidden] { display: none; }
.mark { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 50%; background: currentColor; }
.mark.steps, .mark.bars { border-radius: 0; } .mark.curve { height: .2rem; width: 1.1rem; border-radius: 0; vertical-align: middle; }
.mark.guide { height: 0; width: 1.1rem; border-radius: 0; background: none; border-top: 2px dashed; vertical-align: middle; }
.scene { height: min(32rem, 80vh); overflow: hidden; }
.choices { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin-bottom: .4rem; font-size: .9rem; }
.choices select { font: inherit; max-width: 15rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } .words { min-width: 44rem; } .long td:last-child { overflow-wrap: anywhere; min-width: 9rem; }
pre { overflow-x: auto; font-size: .82rem; } .plain { margin: 0; padding-left: 1.2rem; font-size: .9rem; }
@media (max-width: 40rem) { body { padding: .5rem; } section, figure { padding: .8rem; } .scene { height: 22rem; } }
@media print { body { display: block; } section, figure { break-inside: avoid; margin-bottom: 1rem; } }
</style>
</head>
<body>
$body
$script
</body>
</html>
"""
