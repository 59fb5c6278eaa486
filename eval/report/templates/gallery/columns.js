// Which arms have a column, and in which order: a panel with a line per arm, and the heads of the table, which can be
// dragged, or moved with Shift and the arrow keys, and hidden with Delete.
const galleryColumns = (() => {
  const {columns, columnOf} = galleryImages;
  const panel = document.getElementById("gallery-columns");
  const list = panel.querySelector("ol");
  const status = panel.querySelector("[role=status]");
  let order = columns.map((_, column) => ({column, isShown: true}));
  let changed = () => {};

  const visible = () => order.filter((one) => one.isShown).map((one) => one.column);
  const nameOf = (column) => columns[column].arm;
  const say = (column) => {
    const shown = visible();
    const k = shown.indexOf(column);
    status.textContent = k < 0 ? `${nameOf(column)} is hidden.` : `${nameOf(column)} is column ${k + 1} of ${shown.length}.`;
  };
  const update = (column) => {
    draw();
    say(column);
    changed();
  };

  // Past the next visible column, so that every move is seen.
  const move = (column, step) => {
    const shown = visible();
    const other = shown[shown.indexOf(column) + step];
    if (!shown.includes(column) || other === undefined) return;
    put(column, other, step > 0);
  };
  const put = (column, other, isAfter) => {
    if (column === other) return;
    const one = order.find((own) => own.column === column);
    order = order.filter((own) => own !== one);
    order.splice(order.findIndex((own) => own.column === other) + (isAfter ? 1 : 0), 0, one);
    update(column);
  };
  // One column always stays.
  const show = (column, isShown) => {
    if (isShown || visible().length > 1) order.find((own) => own.column === column).isShown = isShown;
    update(column);
  };

  const moveButton = (column, step, isPossible) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.step = step;
    button.textContent = step < 0 ? "◀" : "▶";
    button.setAttribute("aria-label", `Move ${nameOf(column)} ${step < 0 ? "left" : "right"}`);
    // Not `disabled`, which would lose the focus at the last place.
    button.setAttribute("aria-disabled", String(!isPossible));
    return button;
  };
  const draw = () => {
    const shown = visible();
    panel.querySelector("[data-count]").textContent = shown.length < columns.length ? `(${shown.length} of ${columns.length})` : "";
    list.replaceChildren(...order.map(({column, isShown}) => {
      const item = document.createElement("li");
      item.dataset.arm = column;
      const label = item.appendChild(document.createElement("label"));
      const box = label.appendChild(document.createElement("input"));
      Object.assign(box, {type: "checkbox", checked: isShown});
      label.append(nameOf(column));
      const k = shown.indexOf(column);
      item.append(moveButton(column, -1, k > 0), moveButton(column, 1, k >= 0 && k < shown.length - 1));
      return item;
    }));
  };
  const armAt = (element) => Number(element.closest("[data-arm]").dataset.arm);
  const focus = (column, selector) => list.querySelector(`[data-arm="${column}"] ${selector}`)?.focus();
  list.addEventListener("change", (event) => {
    const column = armAt(event.target);
    show(column, event.target.checked);
    focus(column, "input");
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const column = armAt(button);
    move(column, Number(button.dataset.step));
    focus(column, `[data-step="${button.dataset.step}"]`);
  });
  panel.querySelector("[data-all]").addEventListener("click", () => {
    restore([]);
    status.textContent = "All columns are shown, in the order of the study.";
    changed();
  });

  // The heads of the table, of a layout: those of arms move their column.
  const heads = (layout) => {
    const corner = document.createElement("th");
    corner.scope = "col";
    corner.textContent = layout.corner;
    return [corner, ...layout.heads.map((head, k) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      if (head.arm === undefined) {
        cell.textContent = head.label;
        cell.title = head.title ?? "";
        return cell;
      }
      cell.dataset.arm = head.arm;
      cell.draggable = true;
      const button = cell.appendChild(document.createElement("button"));
      Object.assign(button, {type: "button", textContent: head.label, tabIndex: k ? -1 : 0});
      button.title = "Drag to move; Shift with an arrow key moves it too, Delete hides it, Enter opens the list of columns";
      button.setAttribute("aria-keyshortcuts", "Shift+ArrowLeft Shift+ArrowRight Delete");
      return cell;
    })];
  };
  const headRow = document.getElementById("gallery-table").tHead.rows[0];
  const focusHead = (column) => headRow.querySelector(`[data-arm="${column}"] button`)?.focus();
  headRow.addEventListener("keydown", (event) => {
    const button = event.target.closest("[data-arm] button");
    if (!button) return;
    const column = armAt(button);
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (step) {
      event.preventDefault();
      if (event.shiftKey) { move(column, step); focusHead(column); }
      else focusHead(visible()[visible().indexOf(column) + step]);
    } else if (event.key === "Delete") {
      const next = visible()[visible().indexOf(column) + 1] ?? visible()[0];
      show(column, false);
      focusHead(visible().includes(column) ? column : next);
    }
  });
  // One stop for the Tab key.
  headRow.addEventListener("focusin", (event) => {
    headRow.querySelectorAll("button").forEach((other) => { other.tabIndex = other === event.target ? 0 : -1; });
  });
  headRow.addEventListener("click", (event) => {
    const button = event.target.closest("[data-arm] button");
    if (!button) return;
    panel.open = true;
    focus(armAt(button), "input");
  });

  let dragged = null;
  const isRightHalf = (event, cell) => {
    const box = cell.getBoundingClientRect();
    return event.clientX > box.left + box.width / 2;
  };
  const mark = (cell, side) => {
    headRow.querySelectorAll("[data-drop]").forEach((other) => { delete other.dataset.drop; });
    if (cell) cell.dataset.drop = side;
  };
  headRow.addEventListener("dragstart", (event) => {
    dragged = armAt(event.target);
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", nameOf(dragged));
  });
  headRow.addEventListener("dragover", (event) => {
    const cell = event.target.closest("[data-arm]");
    if (dragged === null || !cell) return;
    event.preventDefault();
    mark(cell, isRightHalf(event, cell) ? "after" : "before");
  });
  headRow.addEventListener("dragleave", () => mark(null));
  headRow.addEventListener("drop", (event) => {
    const cell = event.target.closest("[data-arm]");
    if (dragged === null || !cell) return;
    event.preventDefault();
    put(dragged, armAt(cell), isRightHalf(event, cell));
  });
  headRow.addEventListener("dragend", () => { dragged = null; mark(null); });

  // The shown arms by name, for the address; empty where all are shown in the study's order.
  const names = () => {
    const shown = visible();
    return shown.length === columns.length && shown.every((column, k) => column === k) ? [] : shown.map(nameOf);
  };
  // Names that the study does not have are passed over; without any known one, all columns are shown.
  const restore = (wanted) => {
    const known = [...new Set(wanted.map(columnOf))].filter((column) => column >= 0);
    const rest = columns.map((_, column) => column).filter((column) => !known.includes(column));
    order = [...known.map((column) => ({column, isShown: true})), ...rest.map((column) => ({column, isShown: !known.length}))];
    draw();
  };
  draw();
  return {heads, names, restore, visible, onChange: (then) => { changed = then; }};
})();
