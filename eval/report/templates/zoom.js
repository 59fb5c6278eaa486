// A grid of images: roving focus with the arrow keys, and a large view that goes on to the neighbours.
// `grid` has rows(), columns(), image(row, column) -> {source, title, caption} or null where there is none, and
// cell(row, column) -> the button of an image, which it brings into view.
const dialog = document.getElementById("image");
const STEPS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
const SIDE = 96;
let zoomed = null;

// Images smaller than their place show their own pixels.
const keepPixels = (image) => image.addEventListener("load", () => image.classList.toggle("pixelated", image.naturalWidth <= SIDE));
keepPixels(dialog.querySelector("img"));

const neighbour = (grid, row, column, key) => {
  const [down, right] = STEPS[key];
  do { row += down; column += right; } while (row >= 0 && row < grid.rows() && column >= 0 && column < grid.columns() && !grid.image(row, column));
  return grid.image(row, column) ? [row, column] : null;
};

const zoom = (grid, row, column) => {
  zoomed = {grid, row, column};
  const image = grid.image(row, column);
  const large = dialog.querySelector("img");
  large.src = image.source;
  large.alt = image.title;
  dialog.querySelector("h2").textContent = image.title;
  dialog.querySelector("p").textContent = image.caption;
  if (!dialog.open) dialog.showModal();
};

dialog.addEventListener("keydown", (event) => {
  if (!(event.key in STEPS)) return;
  event.preventDefault();
  const next = neighbour(zoomed.grid, zoomed.row, zoomed.column, event.key);
  if (next) zoom(zoomed.grid, ...next);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
  const key = event.target.dataset?.step;
  const next = key && neighbour(zoomed.grid, zoomed.row, zoomed.column, key);
  if (next) zoom(zoomed.grid, ...next);
});
dialog.addEventListener("close", () => {
  zoomed.grid.cell(zoomed.row, zoomed.column)?.focus();
});

const imageButton = (shown, row, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.setAttribute("aria-haspopup", "dialog");
  Object.assign(button.dataset, {row, column});
  const image = document.createElement("img");
  Object.assign(image, {src: shown.source, alt: shown.title, width: SIDE, height: SIDE, decoding: "async"});
  image.title = `${shown.title}\n${shown.caption}`;
  keepPixels(image);
  button.append(image);
  return button;
};

const place = (button) => [Number(button.dataset.row), Number(button.dataset.column)];
const wireGrid = (grid, table) => {
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) zoom(grid, ...place(button));
  });
  table.addEventListener("keydown", (event) => {
    const button = event.target.closest("button");
    if (!button || !(event.key in STEPS)) return;
    event.preventDefault();
    const next = neighbour(grid, ...place(button), event.key);
    if (next) grid.cell(...next).focus();
  });
  // One stop for the Tab key: the image that had the focus last.
  table.addEventListener("focusin", (event) => {
    if (!event.target.matches("button")) return;
    table.querySelectorAll('button[tabindex="0"]').forEach((other) => { other.tabIndex = -1; });
    event.target.tabIndex = 0;
  });
};
const oneTabStop = (table) => {
  if (!table.querySelector('button[tabindex="0"]')) table.querySelector("tbody button")?.setAttribute("tabindex", "0");
};
