// Hold to compare: while the mouse button or B is held, the baseline's image lies over an image, in the same place.
const hold = (() => {
  const KEY = "b";
  // A shorter press is a click.
  const DELAY = 250;
  let over = null;
  let timer = 0;
  let wasHeld = false;

  const begin = ({place, image}) => {
    const baseline = image.others.find((other) => other.name === image.baseline);
    if (over || !baseline) return;
    over = document.createElement("span");
    over.className = "held";
    over.setAttribute("role", "status");
    const shown = over.appendChild(document.createElement("img"));
    keepPixels(shown);
    Object.assign(shown, {src: baseline.source, alt: ""});
    over.appendChild(document.createElement("small")).textContent = baseline.name;
    place.append(over);
  };
  const end = () => {
    clearTimeout(timer);
    over?.remove();
    over = null;
  };

  // `pressed(target)`, and `typed(target)` for the key, -> {place, image}: the element that the baseline is laid over and
  // what is known of its image, or null.
  const wire = (element, pressed, typed = pressed) => {
    element.addEventListener("pointerdown", (event) => {
      wasHeld = false;
      const found = event.button ? null : pressed(event.target);
      if (found) timer = setTimeout(() => { begin(found); wasHeld = true; }, DELAY);
    });
    // The click that ends a hold opens nothing.
    element.addEventListener("click", (event) => {
      if (!wasHeld) return;
      wasHeld = false;
      event.stopPropagation();
      event.preventDefault();
    }, true);
    element.addEventListener("contextmenu", (event) => { if (over) event.preventDefault(); });
    element.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== KEY || event.ctrlKey || event.metaKey || event.altKey) return;
      const found = typed(event.target);
      if (found) begin(found);
    });
  };
  for (const last of ["pointerup", "pointercancel", "blur"]) addEventListener(last, end);
  addEventListener("keyup", (event) => { if (event.key.toLowerCase() === KEY) end(); });
  return {end, wire};
})();
