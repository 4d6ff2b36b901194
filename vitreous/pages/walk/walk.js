"use strict";
// The choice of one token for the whole page, and the pictures and numbers that follow it.

const root = document.documentElement, data = JSON.parse(document.getElementById("data").textContent);
const { heat, cold, strongest, levels, zero, strip } = data.colors;
const [rows, columns] = data.grid;
const prefix = data.prefix.length;
const cells = { keys: data.keys.grid[0] * data.keys.grid[1], queries: data.queries.grid[0] * data.queries.grid[1] };
let place = data.chosen; // index of the patch; it stays while a prefix token is chosen
let token = prefix + place; // index among all tokens

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const minus = (text) => text.replace("-", "−");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
const patchName = (i) => `patch (${Math.floor(i / columns)}, ${i % columns})`;
const slug = (name) => name.replaceAll(" ", "-");
const tokenName = (i) => (i < prefix ? data.prefix[i] : patchName(i - prefix));

// ---- the data

/** Bytes from base64, inflated. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Replaces packed arrays in a tree by their numbers: "u1:" are bytes, "f4:" are floats. */
async function unpackAll(fields) {
  const unpackField = async ([name, value]) => {
    if (typeof value === "object") return unpackAll(value);
    const kind = typeof value === "string" && value.match(/^(u1|f4):/)?.[1];
    if (!kind) return;
    const bytes = await unpack(value.slice(3));
    fields[name] = kind === "f4" ? new Float32Array(bytes.buffer) : bytes;
  };
  await Promise.all(Object.entries(fields ?? {}).map(unpackField));
}

// ---- pictures

/** Draws `count` numbers from -1 to 1 as pixels: the sign is the color, the size its opacity. */
function draw(view, width, height, count, valueAt) {
  let canvas = view.querySelector("canvas");
  if (!canvas) {
    canvas = Object.assign(document.createElement("canvas"), { width, height });
    view.replaceChildren(canvas); // in place of the still image
  }
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < count; i++) {
    const value = valueAt(i);
    image.data.set(value < 0 ? cold : heat, 4 * i);
    image.data[4 * i + 3] = Math.round(255 * Math.abs(value));
  }
  context.putImageData(image, 0, 0);
}

function drawStrip(view, bytes, index, numbers) {
  const lines = Math.ceil(numbers / strip), width = Math.ceil(numbers / lines);
  draw(view, width, lines, numbers, (i) => (bytes[index * numbers + i] - zero) / zero);
}

/** The cell of a patch on a coarser grid. */
function cellOf(patch, { side, grid }) {
  return Math.floor(Math.floor(patch / columns) / side) * grid[1] + Math.floor((patch % columns) / side);
}

function showPatch() {
  root.style.setProperty("--row", Math.floor(place / columns));
  root.style.setProperty("--column", place % columns);
  const values = data.patches[place].map((value) => minus(value.toFixed(2)));
  document.querySelector("[data-values]").textContent = `(${values.join(", ")}, …)`;
  document.querySelector("[data-patch-name]").textContent = patchName(place).slice(6);
  for (const element of all("[data-value]")) element.textContent = minus(data.tokens[place][element.dataset.value].toFixed(2));
  all("[data-strip]").forEach((view) => drawStrip(view, data.strips[view.dataset.strip], place, data.shown));
  all('[data-map="similarity"]').forEach((view) => {
    const [height, width] = data.similarity.grid, count = width * height;
    draw(view, width, height, count, (i) => (strongest * data.similarity.maps[place * count + i]) / levels);
  });
}

// ---- what follows the choice of a token

function drawAttention(view, shares, name) {
  const [height, width] = data.keys.grid, most = Math.max(...shares), best = Math.max(0, shares.indexOf(most));
  draw(view, width, height, cells.keys, (i) => (strongest * Math.round(levels * Math.sqrt(shares[i] / (most || 1)))) / levels);
  const at = `row ${Math.floor(best / width) * data.keys.side}, column ${(best % width) * data.keys.side}`;
  view.setAttribute("aria-label", `${name}: ${tokenName(token)} attends most, ${percent(most)}, to ${at}`);
}

function showBlock(block, i) {
  const query = token < prefix ? token : prefix + cellOf(place, data.queries), mean = new Float32Array(cells.keys);
  for (let head = 0; head < data.heads; head++) {
    const row = head * (prefix + cells.queries) + query, peak = block.peaks[row];
    const shares = Float32Array.from({ length: cells.keys }, (_, key) => (block.maps[row * cells.keys + key] / levels) ** 2 * peak);
    shares.forEach((share, key) => (mean[key] += share / data.heads));
    const view = document.querySelector(`[data-map="${head}"][data-block="${i}"]`);
    drawAttention(view, shares, `block ${i}, head ${head}`);
    const lines = [`max ${percent(peak)}`, `${data.prefixLabel} ${percent(block.prefix[row])}`].slice(0, prefix ? 2 : 1);
    view.parentElement.querySelector("[data-peak]").innerText = lines.join("\n");
  }
  all(`[data-map="mean"][data-block="${i}"]`).forEach((view) => drawAttention(view, mean, `block ${i}, mean of all heads`));
  showNumbers(block, i);
  if (block.q) showFirstHead(block, i);
}

function showFirstHead(block, i) {
  const [best, worst, ...scores] = block.matches.subarray(4 * token, 4 * token + 4);
  const vectors = { q: ["q", token], best: ["k", best], worst: ["k", worst], v: ["v", best] };
  for (const view of all(`[data-block="${i}"] [data-first]`)) {
    const kind = view.dataset.first, [bytes, index] = vectors[kind];
    drawStrip(view, block[bytes], index, data.headDim);
    const which = ["best", "worst"].indexOf(kind);
    if (which < 0) continue;
    view.parentElement.querySelector("[data-name]").textContent = tokenName(index);
    view.parentElement.querySelector("[data-score]").textContent = minus(scores[which].toFixed(2));
  }
}

function showNumbers(block, i) {
  const computed = token < block.norms.length / 5, most = block.units.length / block.active.length;
  const norms = block.norms.subarray(5 * token, 5 * token + 5);
  for (const figure of all(`figure.numbers[data-block="${i}"]`)) {
    figure.firstElementChild.hidden = !computed;
    all(".absent", figure).forEach((note) => (note.hidden = computed));
    if (!computed) continue;
    if (figure.dataset.of === "norms") setBars(figure, norms, (value) => String(Number(value.toPrecision(3))));
    else showHidden(figure, block, most);
  }
  all(`summary[data-block="${i}"] .absent`).forEach((note) => (note.hidden = computed));
  for (const share of all(`summary[data-block="${i}"] [data-adds]`)) {
    const branch = Number(share.dataset.adds);
    share.parentElement.hidden = !computed;
    const added = norms[branch] / (norms[branch - 1] || 1);
    share.textContent = !computed ? "" : added < 10 ? percent(added, 0) : `${added.toFixed(0)} times`;
  }
}

function showHidden(figure, block, most) {
  const start = most * token, heights = block.heights.subarray(start, start + most);
  setBars(figure, heights, (value) => minus(value.toFixed(2)), (j) => `unit ${block.units[start + j]}`);
  figure.querySelector("[data-active]").textContent = percent(block.active[token], 0);
}

function setBars(figure, sizes, text, name) {
  const most = Math.max(0, ...sizes) || 1;
  all("li", figure).forEach((item, j) => {
    if (name) item.querySelector("b").textContent = name(j);
    item.querySelector("i").style.width = `${Math.max(0, (100 * sizes[j]) / most)}%`;
    item.lastElementChild.textContent = text(sizes[j]);
  });
}

// ---- choosing

/** Chooses a token for the whole page. */
function choose(index, updateAddress = true) {
  token = index;
  if (token >= prefix) place = token - prefix;
  root.classList.toggle("prefix-chosen", token < prefix);
  document.querySelector("[data-choice]").textContent = tokenName(token);
  all("[data-token]").forEach((button, own) => button.setAttribute("aria-pressed", own === token));
  for (const cell of all("[data-place]")) {
    const chosen = Number(cell.dataset.place) === place;
    cell.tabIndex = chosen ? 0 : -1;
    cell.setAttribute("aria-selected", chosen && token >= prefix);
  }
  showPatch();
  data.blocks.forEach(showBlock);
  const name = token < prefix ? `token=${slug(data.prefix[token])}` : `patch=${Math.floor(place / columns)},${place % columns}`;
  if (updateAddress) history.replaceState(null, "", `#${name}`);
}

/** The token in the address, or null. */
function fromHash() {
  const [kind, value = ""] = location.hash.slice(1).split("=");
  const named = data.prefix.findIndex((name) => kind === "token" && slug(name) === value);
  if (named >= 0) return named;
  const match = kind === "patch" && value.match(/^(\d+),(\d+)$/);
  return match && match[1] < rows && match[2] < columns ? prefix + Number(match[1]) * columns + Number(match[2]) : null;
}

function add(parent, role, label = null) {
  return Object.assign(parent.appendChild(document.createElement("div")), { role, ariaLabel: label });
}

function makePicker(picker) {
  Object.assign(picker, { role: "grid", ariaLabel: "patches: choose one with the arrow keys" });
  for (let row = 0; row < rows; row++) {
    const line = add(picker, "row");
    for (let column = 0; column < columns; column++) {
      add(line, "gridcell", `row ${row}, column ${column}`).dataset.place = row * columns + column;
    }
  }
  picker.addEventListener("keydown", onKey);
  picker.addEventListener("click", (event) => move(picker, Number(event.target.dataset.place ?? place)));
}

function move(picker, to) {
  choose(prefix + to);
  picker.querySelector(`[data-place="${to}"]`).focus({ preventScroll: true });
}

function onKey(event) {
  const row = Math.floor(place / columns), column = place % columns, far = event.ctrlKey || event.metaKey;
  const to = {
    ArrowLeft: [row, Math.max(0, column - 1)], ArrowRight: [row, Math.min(columns - 1, column + 1)],
    ArrowUp: [Math.max(0, row - 1), column], ArrowDown: [Math.min(rows - 1, row + 1), column],
    Home: [far ? 0 : row, 0], End: [far ? rows - 1 : row, columns - 1],
    Enter: [row, column], " ": [row, column],
  }[event.key];
  if (to) move(event.currentTarget, to[0] * columns + to[1]);
  else if (event.key.toLowerCase() === "c" && !far && !event.altKey && prefix) choose(token === 0 ? prefix + place : 0);
  else return;
  event.preventDefault();
}

/** A click on any picture of the photo chooses the patch there. */
function onPicture(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const at = (part, count) => Math.min(count - 1, Math.max(0, Math.floor(part * count)));
  const row = at((event.clientY - box.top) / box.height, rows);
  choose(prefix + row * columns + at((event.clientX - box.left) / box.width, columns));
}

function goTo(event) {
  const target = document.querySelector(event.currentTarget.getAttribute("href"));
  event.preventDefault(); // the address holds the choice
  if (target instanceof HTMLDetailsElement) target.open = true;
  target.scrollIntoView();
  (target.querySelector(":scope > summary") ?? target).focus({ preventScroll: true });
}

function watchStages() {
  const links = new Map(all("nav a").map((link) => [document.querySelector(link.getAttribute("href")), link]));
  const mark = ({ target, isIntersecting }) => {
    const link = links.get(target), line = link.closest("nav");
    link.ariaCurrent = isIntersecting ? "location" : null;
    if (isIntersecting) line.scrollTo({ left: link.offsetLeft - line.clientWidth / 2 });
  };
  const observer = new IntersectionObserver((entries) => entries.forEach(mark), { rootMargin: "-25% 0px -74% 0px" });
  links.forEach((_, target) => observer.observe(target));
}

function onOpenAll(event) {
  const open = all("details.block").some((block) => !block.open);
  all("details.block").forEach((block) => (block.open = open));
  event.currentTarget.textContent = open ? "Close all blocks" : "Open all blocks";
}

async function start() {
  await unpackAll(data);
  all("[data-picker]").forEach(makePicker);
  all(".pick").forEach((view) => view.addEventListener("click", onPicture));
  all("[data-token]").forEach((button, own) => {
    button.addEventListener("click", () => choose(token === own ? prefix + place : own));
  });
  all('a[href^="#"]').forEach((link) => link.addEventListener("click", goTo));
  all("[data-open]").forEach((button) => button.addEventListener("click", onOpenAll));
  addEventListener("hashchange", () => fromHash() !== null && choose(fromHash(), false));
  root.classList.add("scripted");
  choose(fromHash() ?? token, false);
  watchStages();
}

start();
