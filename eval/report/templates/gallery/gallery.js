// The gallery: the form, the columns and the address say what the table shows.
(() => {
  const {columns, baseline, columnOf, rowOf, seeds, word, named} = galleryImages;
  const filters = document.getElementById("gallery-filters");
  const status = document.getElementById("gallery-status");
  const FIELDS = ["layout", "seed", "method", "text", "view", "score", "low", "high", "kind", "label", "arm"];
  const TYPED = ["text", "low", "high", "seed"];
  const fields = filters.elements;
  const initial = Object.fromEntries(FIELDS.map((name) => [name, fields[name].value]));
  let message = "";

  const chosen = () => Object.fromEntries(FIELDS.map((name) => [name, fields[name].value]));
  // The columns of which one must pass the filters.
  const candidates = (values, shown) => values.arm === "" ? shown : [Number(values.arm)];

  const layoutOf = (values, visible) => {
    if (values.layout === "scales") {
      const row = rowOf(values.seed);
      if (row === undefined) return [galleryLayouts.arms([], visible), `${named} ${values.seed || "(none)"} is not in this page, which has ${word}s from ${seeds[0]} to ${seeds.at(-1)}`];
      const layout = galleryLayouts.methodsByScale(row, visible);
      return [layout, `${named} ${seeds[row]}: ${layout.rows} methods at ${layout.heads.length} scales`];
    }
    const shown = values.layout === "method" ? galleryLayouts.columnsOf(values.method).filter((column) => visible.includes(column)) : visible;
    const {rows, of} = galleryChoice.choose(values, candidates(values, shown));
    const marks = values.view === "seeds" ? "" : ", ★ marks the image that put its row there";
    const told = rows.length ? `${rows.length} of ${of} rows${marks}` : `None of ${of} rows passes; Reset takes every filter away`;
    return [values.layout === "method" ? galleryLayouts.seedsByScale(rows, values.method, visible) : galleryLayouts.arms(rows, visible), told];
  };
  const say = (rows, isPrinting) => {
    const printed = isPrinting && rows > galleryTable.PRINTED_ROWS ? `, of which the first ${galleryTable.PRINTED_ROWS} are printed` : "";
    status.textContent = `${message}${printed}.`;
  };
  const show = (keepsPlace) => {
    const values = chosen();
    const visible = galleryColumns.visible();
    filters.dataset.layout = values.layout;
    const [layout, told] = layoutOf(values, visible);
    message = told;
    say(layout.rows, false);
    const outside = values.layout === "scales" ? () => false : galleryChoice.isOutside(values, candidates(values, visible));
    galleryTable.show(layout, galleryColumns.heads(layout), {value: galleryChoice.valueOf(values), outside}, keepsPlace);
    const [low, high] = galleryChoice.bounds(values);
    galleryHistogram.draw(galleryChoice.scores(values, candidates(values, visible)), low, high);
  };

  // What the address holds: whatever is not as the page has it at first. Arms are identified by their names, images by arm and seed.
  let opened = null;
  const stateOf = () => {
    const state = {};
    for (const [name, value] of Object.entries(chosen())) if (value !== initial[name]) state[name] = value;
    if (state.arm) state.arm = columns[Number(state.arm)].arm;
    if (galleryColumns.names().length) state.columns = galleryColumns.names().join(",");
    if (opened) {
      const [row, column] = opened;
      state.image = `${columns[column].arm}:${seeds[row]}`;
      if (zoom.other()) state.with = zoom.other();
    }
    return state;
  };
  const same = (one, other) => JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort());
  const setField = (name, value) => {
    const field = fields[name];
    // A link may say what no option has, or no number.
    const isPossible = field.tagName === "SELECT" ? [...field.options].some((option) => option.value === value)
      : field.type !== "number" || Number.isFinite(Number(value));
    field.value = isPossible ? value : initial[name];
  };
  const restoreTable = (wanted) => {
    const arm = columnOf(wanted.arm);
    for (const name of FIELDS) setField(name, wanted[name] ?? initial[name]);
    setField("arm", arm < 0 ? "" : String(arm));
    galleryColumns.restore((wanted.columns ?? "").split(","));
    show(false);
  };
  let isRestoring = false;
  const restoreImage = (wanted) => {
    const [name, seed] = (wanted.image ?? "").split(":");
    const row = rowOf(seed);
    const place = row !== undefined && columnOf(name) >= 0 ? galleryTable.find(row, columnOf(name)) : null;
    if (place) zoom.open(galleryTable.grid, ...place, wanted.with ?? "");
    else { opened = null; zoom.close(); }
  };
  const table = ({image, with: other, ...rest}) => rest;
  const restore = () => {
    galleryAddress.flush();
    const wanted = galleryAddress.read();
    if (wanted === null || same(wanted, stateOf())) return;
    isRestoring = true;
    // The table stays where it is when an image alone is opened or closed.
    if (!same(table(wanted), table(stateOf()))) restoreTable(wanted);
    restoreImage(wanted);
    isRestoring = false;
  };

  // Set by the large view, so that closing it goes back to the address before.
  const isLargeView = () => history.state?.isLargeView;
  galleryTable.grid.opened = (at, k) => {
    const isFirst = !opened;
    opened = galleryTable.grid.place(at, k);
    if (isRestoring) return;
    if (isFirst) galleryAddress.push(stateOf(), {isLargeView: true});
    else galleryAddress.replace(stateOf());
  };
  galleryTable.grid.closed = () => {
    if (!opened) return;
    galleryAddress.flush();
    opened = null;
    if (isLargeView()) history.back();
    else galleryAddress.replace(stateOf());
  };

  filters.addEventListener("input", (event) => {
    show(false);
    if (TYPED.includes(event.target.name)) galleryAddress.replace(stateOf());
    else galleryAddress.push(stateOf());
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  // The form has its first values again only after the event.
  filters.addEventListener("reset", () => setTimeout(() => { show(false); galleryAddress.push(stateOf()); }));
  galleryColumns.onChange(() => { show(true); galleryAddress.push(stateOf()); });
  galleryHistogram.onRange((low, high) => {
    fields.low.value = low;
    fields.high.value = high;
    show(false);
    galleryAddress.replace(stateOf());
  });
  addEventListener("popstate", restore);
  const print = (begins) => { galleryTable.print(begins); say(galleryTable.grid.rows(), begins); };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));

  show(false);
  if (location.hash.startsWith("#gallery?")) {
    restore();
    document.getElementById("gallery").scrollIntoView();
  }
})();
