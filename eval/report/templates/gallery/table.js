// The table of the gallery. Only the rows in view are in the document.
const galleryTable = (() => {
  const {columns, digits, describe, isHeld} = galleryImages;
  const table = document.getElementById("gallery-table");
  const body = table.tBodies[0];
  const scroll = document.getElementById("gallery-scroll");
  const PRINTED_ROWS = 24;
  const SPARE_ROWS = 4;
  let layout = {heads: [], rows: 0};
  let valueOf = () => null;
  let isOutside = () => false;
  let isPrinting = false;
  let rowHeight = 0;

  const placed = (at, k) => {
    const place = at >= 0 && at < layout.rows && k >= 0 && k < layout.heads.length ? layout.cell(at, k) : null;
    return place && isHeld(...place) ? place : null;
  };
  const rowHead = (at) => {
    const {strong, text} = layout.head(at);
    const head = document.createElement("th");
    head.scope = "row";
    head.title = text || strong;
    const box = head.appendChild(document.createElement("div"));
    box.appendChild(document.createElement("b")).textContent = strong;
    box.append(text);
    return head;
  };
  const cellOf = (at, k) => {
    const cell = document.createElement("td");
    const place = layout.cell(at, k);
    if (!place || !isHeld(...place)) {
      cell.textContent = "–";
      cell.title = place ? "not in this page" : "no arm has this scale";
      return cell;
    }
    cell.append(imageButton(describe(...place), at, k));
    const isMarked = place[1] === layout.marked(at);
    cell.appendChild(document.createElement("small")).textContent = `${isMarked ? "★ " : ""}${digits(valueOf(...place))}`;
    cell.classList.toggle("chosen", isMarked);
    cell.classList.toggle("outside", isOutside(...place));
    return cell;
  };
  const line = (at) => {
    const row = document.createElement("tr");
    row.setAttribute("aria-rowindex", at + 2);
    row.append(rowHead(at), ...layout.heads.map((_, k) => cellOf(at, k)));
    return row;
  };

  // Lines in the document by their place, between two spacers as high as what is left out.
  const drawn = new Map();
  const spacers = [0, 1].map(() => {
    const row = document.createElement("tr");
    row.className = "spacer";
    row.setAttribute("aria-hidden", "true");
    row.appendChild(document.createElement("td"));
    return row;
  });
  const measure = () => {
    const trial = body.appendChild(line(0));
    rowHeight = trial.getBoundingClientRect().height;
    trial.remove();
  };
  const draw = () => {
    if (!rowHeight && layout.rows) measure();
    const seen = Math.floor(scroll.scrollTop / rowHeight) || 0;
    const first = isPrinting ? 0 : Math.max(0, seen - SPARE_ROWS);
    const last = Math.min(layout.rows, isPrinting ? PRINTED_ROWS : first + Math.ceil(scroll.clientHeight / rowHeight) + 2 * SPARE_ROWS || 0);
    for (const [at, row] of drawn) if (at < first || at >= last) { row.remove(); drawn.delete(at); }
    const [above, below] = spacers;
    above.firstChild.style.height = `${first * rowHeight}px`;
    below.firstChild.style.height = `${isPrinting ? 0 : (layout.rows - last) * rowHeight}px`;
    if (!above.isConnected) body.replaceChildren(above, below);
    // Lines that are there stay untouched, so that the focus does.
    let next = below;
    for (let at = last - 1; at >= first; at--) {
      if (!drawn.has(at)) drawn.set(at, line(at));
      const row = drawn.get(at);
      if (row.nextSibling !== next) body.insertBefore(row, next);
      next = row;
    }
    oneTabStop(table);
  };

  // `heads` are the cells of the head, `value(row, column)` is the number below an image, and `outside(row, column)` is
  // whether it does not pass the filters that let its row through.
  const show = (shown, heads, {value, outside}, keepsPlace) => {
    layout = shown;
    valueOf = value;
    isOutside = outside;
    rowHeight = 0;
    table.tHead.rows[0].replaceChildren(...heads);
    table.setAttribute("aria-rowcount", layout.rows + 1);
    spacers.forEach((row) => { row.firstChild.colSpan = layout.heads.length + 1; });
    body.replaceChildren();
    drawn.clear();
    if (!keepsPlace) scroll.scrollTop = 0;
    draw();
  };
  const reveal = (at) => {
    const top = at * rowHeight;
    const head = table.tHead.offsetHeight;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + rowHeight + head > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + rowHeight + head - scroll.clientHeight;
    draw();
  };
  // Where an image is in the table as it is shown: [at, k], or null.
  const find = (row, column) => {
    for (let at = 0; at < layout.rows; at++) for (let k = 0; k < layout.heads.length; k++) {
      const place = placed(at, k);
      if (place && place[0] === row && place[1] === column) return [at, k];
    }
    return null;
  };

  const grid = {
    rows: () => layout.rows,
    columns: () => layout.heads.length,
    image: (at, k) => { const place = placed(at, k); return place && describe(...place); },
    cell: (at, k) => { reveal(at); return body.querySelector(`button[data-row="${at}"][data-column="${k}"]`); },
    place: placed,
  };
  wireGrid(grid, table);
  scroll.addEventListener("scroll", () => requestAnimationFrame(draw), {passive: true});
  addEventListener("resize", () => { rowHeight = 0; draw(); });
  const print = (begins) => { isPrinting = begins; draw(); };
  return {PRINTED_ROWS, find, grid, print, show};
})();
