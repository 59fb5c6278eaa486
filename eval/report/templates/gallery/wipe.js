// The A/B slider of the large view: the image lies left of the handle, another arm's of the same seed right of it.
const wipe = (() => {
  const box = dialog.querySelector(".large");
  const slider = box.querySelector("input");
  const other = box.querySelector(".other");
  const [left, right] = box.querySelectorAll(".side");
  keepPixels(other);

  const place = () => {
    box.style.setProperty("--wipe", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left.textContent}, ${100 - slider.value} % ${right.textContent}`);
  };
  // `name` and `second` {name, source}; null takes the slider away.
  const show = (name, second) => {
    box.classList.toggle("wiping", second !== null);
    for (const element of [slider, other, left, right]) element.hidden = second === null;
    if (second === null) return;
    other.src = second.source;
    other.alt = second.name;
    left.textContent = name;
    right.textContent = second.name;
    slider.setAttribute("aria-label", `Wipe from ${second.name} to ${name}`);
    place();
  };
  slider.addEventListener("input", place);
  return {show};
})();
