// The large view of an image, from which arrow keys go on to its neighbours.
const zoom = (() => {
  const choice = dialog.querySelector("select");
  const copy = dialog.querySelector("[data-copy]");
  const details = dialog.querySelector("details");
  const status = dialog.querySelector("[role=status]");
  const large = dialog.querySelector(".shown");
  // What has its own use for arrow keys and letters.
  const OWN_KEYS = "input, select, pre";
  let zoomed = null;
  // The arm to wipe against, which stays chosen from image to image.
  let wanted = "";
  keepPixels(large);

  const image = () => zoomed.grid.image(zoomed.row, zoomed.column);
  const second = (shown) => shown.others.find((other) => other.name === wanted && other.name !== shown.name) ?? null;
  const offer = (shown) => {
    const names = shown.others.map((other) => other.name).filter((name) => name !== shown.name);
    choice.replaceChildren(...["", ...names].map((name) => new Option(name || "nothing", name)));
    choice.value = second(shown) ? wanted : "";
    choice.closest("label").hidden = !names.length;
  };
  const open = (grid, row, column, other = wanted) => {
    hold.end();
    zoomed = {grid, row, column};
    wanted = other;
    const shown = image();
    large.src = shown.source;
    large.alt = shown.title;
    dialog.querySelector("h2").textContent = shown.title;
    dialog.querySelector("p").textContent = shown.caption;
    dialog.querySelector("pre").textContent = shown.parameters ?? "";
    copy.hidden = details.hidden = !shown.parameters;
    status.textContent = "";
    offer(shown);
    wipe.show(shown.name, second(shown));
    if (!dialog.open) dialog.showModal();
    grid.opened?.(row, column);
  };
  const step = (key) => {
    const next = neighbour(zoomed.grid, zoomed.row, zoomed.column, key);
    if (next) open(zoomed.grid, ...next);
  };

  const copyParameters = async () => {
    const {parameters} = image();
    try {
      await navigator.clipboard.writeText(parameters);
      status.textContent = "The parameters are in the clipboard.";
    } catch {
      // A browser may keep the clipboard from a page that is a file or within another page.
      details.open = true;
      getSelection().selectAllChildren(dialog.querySelector("pre"));
      status.textContent = "The browser allows no copying here; the parameters are selected.";
    }
  };

  dialog.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS) || event.target.matches(OWN_KEYS)) return;
    event.preventDefault();
    step(event.key);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const key = event.target.dataset?.step;
    if (key) step(key);
  });
  dialog.addEventListener("close", () => {
    // Closed and opened again at once.
    if (dialog.open) return;
    hold.end();
    zoomed.grid.cell(zoomed.row, zoomed.column)?.focus();
    zoomed.grid.closed?.();
  });
  choice.addEventListener("input", () => open(zoomed.grid, zoomed.row, zoomed.column, choice.value));
  copy.addEventListener("click", copyParameters);
  const box = dialog.querySelector(".large");
  const held = () => (box.classList.contains("wiping") ? null : {place: box, image: image()});
  hold.wire(
    dialog,
    (target) => (target === large ? held() : null),
    (target) => (target.matches(OWN_KEYS) ? null : held()),
  );
  return {close: () => dialog.close(), open, other: () => (zoomed && second(image()) ? wanted : "")};
})();
