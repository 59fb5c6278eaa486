// A grid of images: one stop for the Tab key, arrow keys between images, Enter or a click for the large view.
// `grid` has rows(), columns(), image(row, column) -> {source, title, caption, name, others, baseline, parameters} or
// null where there is none, and cell(row, column) -> the button of an image, which it brings into view. `others` are
// {name, source} of the same image by other arms, `baseline` is the name of one of them. opened(row, column) and closed()
// are called, where a grid has them, when the large view shows an image of it and no more.
const dialog = document.getElementById("image");
const STEPS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
const SIDE = 96;

// Images smaller than their place show their own pixels.
const keepPixels = (image) => image.addEventListener("load", () => image.classList.toggle("pixelated", image.naturalWidth <= SIDE));

const neighbour = (grid, row, column, key) => {
  const [down, right] = STEPS[key];
  do { row += down; column += right; } while (row >= 0 && row < grid.rows() && column >= 0 && column < grid.columns() && !grid.image(row, column));
  return grid.image(row, column) ? [row, column] : null;
};

const imageButton = (shown, row, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.setAttribute("aria-haspopup", "dialog");
  Object.assign(button.dataset, {row, column});
  const image = document.createElement("img");
  Object.assign(image, {src: shown.source, alt: shown.title, width: SIDE, height: SIDE, decoding: "async", draggable: false});
  image.title = `${shown.title}\n${shown.caption}`;
  keepPixels(image);
  button.append(image);
  return button;
};

const placeOf = (button) => [Number(button.dataset.row), Number(button.dataset.column)];
const wireGrid = (grid, table) => {
  const body = table.tBodies[0];
  hold.wire(body, (target) => {
    const button = target.closest("button");
    return button && {place: button, image: grid.image(...placeOf(button))};
  });
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) zoom.open(grid, ...placeOf(button));
  });
  body.addEventListener("keydown", (event) => {
    const button = event.target.closest("button");
    if (!button || !(event.key in STEPS)) return;
    event.preventDefault();
    const next = neighbour(grid, ...placeOf(button), event.key);
    if (next) grid.cell(...next).focus();
  });
  // One stop for the Tab key: the image that had the focus last.
  body.addEventListener("focusin", (event) => {
    if (!event.target.matches("button")) return;
    body.querySelectorAll('button[tabindex="0"]').forEach((other) => { other.tabIndex = -1; });
    event.target.tabIndex = 0;
  });
};
const oneTabStop = (table) => {
  const body = table.tBodies[0];
  if (!body.querySelector('button[tabindex="0"]')) body.querySelector("button")?.setAttribute("tabindex", "0");
};
