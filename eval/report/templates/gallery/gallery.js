// The gallery: rows are seeds, columns arms. Only the rows in view are in the document.
const content = JSON.parse(document.getElementById("gallery-content").textContent);
const {columns, texts, block: BLOCK} = content;
const galleryTable = document.getElementById("gallery-table");
const galleryBody = galleryTable.tBodies[0];
const galleryScroll = document.getElementById("gallery-scroll");
const filters = document.getElementById("gallery-filters");
const PRINTED_ROWS = 24;
const SPARE_ROWS = 4;

// Base64 of the images, a line an arm, read block by block.
const blocks = new Map();
const source = (row, column) => {
  const k = Math.floor(row / BLOCK);
  if (!blocks.has(k)) blocks.set(k, document.getElementById(`images-${k}`).textContent.split("\n"));
  const data = blocks.get(k)[(row % BLOCK) * columns.length + column];
  return data && `data:image/webp;base64,${data}`;
};
const held = (row, column) => row < content.whole || content.parts[row - content.whole].includes(column);

const digits = (value) => value === null ? "–" : String(Number(value.toPrecision(3)));
const labelText = (label) => label && `label: ${label.verdicts.join(", ").replaceAll("_", " ")}${label.simulated ? " (simulated)" : ""}`;
const describe = (row, column) => {
  const own = columns[column];
  const negative = texts[own.negatives[row]];
  const scores = content.scores.map((score) => `${score.label} ${digits(own.scores[score.key][row])}`);
  if (own.moved) scores.push(`moved ${digits(own.moved[row])} from ${content.baseline}`);
  return {
    source: source(row, column),
    title: `${own.arm}, seed ${content.seeds[row]}`,
    caption: [
      `prompt: ${texts[own.prompts[row]] || "(empty)"}`, negative && `negative prompt: ${negative}`, scores.join(", "),
      `kind: ${content.kinds[own.kinds[row]]}`, labelText(own.labels[row]), own.ids[row],
    ].filter(Boolean).join("\n"),
  };
};

// What is shown: rows of `content` in the order of the view, and the column that put each there.
let shown = [];
let valueOf = () => null;
let printing = false;
let message = "";

const passes = (chosen) => {
  const text = chosen.text.trim().toLowerCase();
  const [low, high] = [chosen.low, chosen.high].map((bound) => bound === "" ? null : Number(bound));
  const labelled = {
    "": () => true,
    none: (label) => !label,
    undecided: (label) => label && label.majority === null,
  }[chosen.label] ?? ((label) => label?.majority === chosen.label);
  return (row, column) => {
    const own = columns[column];
    const value = own.scores[chosen.score][row];
    return held(row, column)
      && (!text || texts[own.prompts[row]].toLowerCase().includes(text))
      && (low === null || (value !== null && value >= low))
      && (high === null || (value !== null && value <= high))
      && (chosen.kind === "" || own.kinds[row] === Number(chosen.kind))
      && labelled(own.labels[row]);
  };
};

const choose = () => {
  const chosen = Object.fromEntries(["text", "view", "score", "low", "high", "kind", "label", "arm"].map((name) => [name, filters.elements[name].value]));
  const wanted = chosen.arm === "" ? columns.map((_, column) => column) : [Number(chosen.arm)];
  const pass = passes(chosen);
  valueOf = chosen.view === "moved"
    ? (row, column) => columns[column].moved?.[row] ?? null
    : (row, column) => columns[column].scores[chosen.score][row];
  const better = content.scores.find((score) => score.key === chosen.score).better;
  const falling = chosen.view === "moved" || (chosen.view === "best") === (better !== "lower");
  const ordered = chosen.view !== "seeds";
  shown = [];
  // Rows after `whole` were chosen by their scores.
  const rows = ordered ? content.pairs.length : content.whole;
  for (let row = 0; row < rows; row++) {
    let found = wanted.filter((column) => pass(row, column));
    if (ordered) found = found.filter((column) => valueOf(row, column) !== null);
    if (!found.length) continue;
    const first = (a, b) => (falling ? valueOf(row, b) - valueOf(row, a) : valueOf(row, a) - valueOf(row, b));
    shown.push({row, column: ordered ? [...found].sort(first)[0] : null});
  }
  if (ordered) shown.sort((a, b) => (falling ? -1 : 1) * (valueOf(a.row, a.column) - valueOf(b.row, b.column)) || a.row - b.row);
  message = shown.length
    ? `${shown.length} of ${rows} rows${ordered ? ", ★ marks the image that put its row there" : ""}`
    : `None of ${rows} rows passes; Reset takes every filter away`;
  say();
  galleryBody.replaceChildren();
  drawn.clear();
  galleryScroll.scrollTop = 0;
  draw();
};

const say = () => {
  const printed = printing && shown.length > PRINTED_ROWS ? `, of which the first ${PRINTED_ROWS} are printed` : "";
  document.getElementById("gallery-status").textContent = `${message}${printed}.`;
};

const cellsOf = (at) => {
  const {row, column: chosenColumn} = shown[at];
  const line = document.createElement("tr");
  line.setAttribute("aria-rowindex", at + 2);
  const head = line.appendChild(document.createElement("th"));
  head.scope = "row";
  const box = head.appendChild(document.createElement("div"));
  const seed = box.appendChild(document.createElement("b"));
  seed.textContent = `seed ${content.seeds[row]}`;
  const base = columns.findIndex((own) => own.arm === content.baseline);
  const prompt = texts[columns[base].prompts[row]] || "(empty prompt)";
  box.append(prompt);
  head.title = prompt;
  columns.forEach((_, column) => {
    const cell = line.appendChild(document.createElement("td"));
    if (!held(row, column)) {
      cell.textContent = "–";
      cell.title = "not in this page";
      return;
    }
    cell.append(imageButton(describe(row, column), at, column));
    const value = cell.appendChild(document.createElement("small"));
    value.textContent = `${column === chosenColumn ? "★ " : ""}${digits(valueOf(row, column))}`;
    cell.classList.toggle("chosen", column === chosenColumn);
  });
  return line;
};

// Rows in the document by their place in `shown`, between two spacers as high as what is left out.
const drawn = new Map();
const spacers = [0, 1].map(() => {
  const line = document.createElement("tr");
  line.className = "spacer";
  line.setAttribute("aria-hidden", "true");
  line.appendChild(document.createElement("td")).colSpan = columns.length + 1;
  return line;
});
let rowHeight = 0;

const draw = () => {
  galleryTable.setAttribute("aria-rowcount", shown.length + 1);
  if (!rowHeight && shown.length) {
    const trial = galleryBody.appendChild(cellsOf(0));
    rowHeight = trial.getBoundingClientRect().height;
    trial.remove();
  }
  const first = printing ? 0 : Math.max(0, Math.floor(galleryScroll.scrollTop / rowHeight) - SPARE_ROWS);
  const last = printing ? Math.min(shown.length, PRINTED_ROWS) : Math.min(shown.length, first + Math.ceil(galleryScroll.clientHeight / rowHeight) + 2 * SPARE_ROWS);
  for (const [at, line] of drawn) if (at < first || at >= last) { line.remove(); drawn.delete(at); }
  const [above, below] = spacers;
  above.firstChild.style.height = `${first * rowHeight}px`;
  below.firstChild.style.height = `${printing ? 0 : (shown.length - last) * rowHeight}px`;
  if (!above.isConnected) galleryBody.replaceChildren(above, below);
  // Lines that are there stay untouched, so that the focus does.
  let next = below;
  for (let at = last - 1; at >= first; at--) {
    if (!drawn.has(at)) drawn.set(at, cellsOf(at));
    const line = drawn.get(at);
    if (line.nextSibling !== next) galleryBody.insertBefore(line, next);
    next = line;
  }
  oneTabStop(galleryTable);
};

const galleryGrid = {
  rows: () => shown.length,
  columns: () => columns.length,
  image: (at, column) => shown[at] && columns[column] && held(shown[at].row, column) ? describe(shown[at].row, column) : null,
  cell: (at, column) => {
    const top = at * rowHeight;
    const head = galleryTable.tHead.offsetHeight;
    if (top < galleryScroll.scrollTop) galleryScroll.scrollTop = top;
    else if (top + rowHeight + head > galleryScroll.scrollTop + galleryScroll.clientHeight) galleryScroll.scrollTop = top + rowHeight + head - galleryScroll.clientHeight;
    draw();
    return galleryBody.querySelector(`button[data-row="${at}"][data-column="${column}"]`);
  },
};

wireGrid(galleryGrid, galleryTable);
galleryScroll.addEventListener("scroll", () => requestAnimationFrame(draw), {passive: true});
addEventListener("resize", () => { rowHeight = 0; draw(); });
filters.addEventListener("input", choose);
filters.addEventListener("submit", (event) => event.preventDefault());
// The form has its first values again only after the event.
filters.addEventListener("reset", () => setTimeout(choose));
addEventListener("beforeprint", () => { printing = true; say(); draw(); });
addEventListener("afterprint", () => { printing = false; say(); draw(); });
choose();
