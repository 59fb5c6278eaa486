// How the chosen score is distributed, with the chosen range marked; a range is also chosen by dragging across it.
const galleryHistogram = (() => {
  const {digits} = galleryImages;
  const svg = document.getElementById("gallery-histogram");
  const ends = document.getElementById("gallery-histogram-ends");
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const BINS = 32;
  const [WIDTH, HEIGHT] = [160, 40];
  // The least bar that can be seen.
  const LEAST = 1;
  let extent = null;
  let chosen = () => {};

  const shape = (name, attributes) => {
    const element = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const xOf = (value) => extent.high === extent.low ? WIDTH / 2 : WIDTH * (value - extent.low) / (extent.high - extent.low);
  const clamped = (x) => Math.min(WIDTH, Math.max(0, x));
  const counted = (values) => {
    const counts = Array(BINS).fill(0);
    for (const value of values) counts[Math.min(BINS - 1, Math.floor(BINS * xOf(value) / WIDTH))] += 1;
    return counts;
  };
  const bars = (counts, kind) => {
    const most = Math.max(...counts);
    const group = shape("g", {class: kind});
    counts.forEach((count, k) => {
      if (!count) return;
      const height = Math.max(LEAST, HEIGHT * count / most);
      group.append(shape("rect", {x: k * WIDTH / BINS, y: HEIGHT - height, width: WIDTH / BINS - 0.5, height}));
    });
    return group;
  };

  // `low` and `high` are null where the range is open.
  const draw = (values, low, high) => {
    svg.replaceChildren();
    extent = values.length ? {low: values.reduce((a, b) => Math.min(a, b)), high: values.reduce((a, b) => Math.max(a, b))} : null;
    const inside = values.filter((value) => (low === null || value >= low) && (high === null || value <= high)).length;
    const words = `${inside} of ${values.length} images`;
    svg.setAttribute("aria-label", extent ? `Histogram of the score from ${digits(extent.low)} to ${digits(extent.high)}; ${words} in the range` : "No image has this score");
    ends.replaceChildren(...(extent ? [digits(extent.low), words, digits(extent.high)] : ["", "no image has this score", ""]).map((text) => {
      const end = document.createElement("span");
      end.textContent = text;
      return end;
    }));
    if (!extent) return;
    const counts = counted(values);
    const from = low === null ? 0 : clamped(xOf(low));
    const to = high === null ? WIDTH : clamped(xOf(high));
    const clip = shape("clipPath", {id: "gallery-range"});
    clip.append(shape("rect", {x: from, y: 0, width: Math.max(0, to - from), height: HEIGHT}));
    const within = bars(counts, "within");
    within.setAttribute("clip-path", "url(#gallery-range)");
    svg.append(clip, bars(counts, "all"), within);
    for (const [bound, x] of [[low, from], [high, to]]) if (bound !== null) svg.append(shape("line", {x1: x, x2: x, y1: 0, y2: HEIGHT}));
  };

  let start = null;
  const valueAt = (event) => {
    const box = svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return Number((extent.low + share * (extent.high - extent.low)).toPrecision(4));
  };
  svg.addEventListener("pointerdown", (event) => {
    if (!extent || event.button) return;
    svg.setPointerCapture(event.pointerId);
    start = valueAt(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const value = valueAt(event);
    if (value !== start) chosen(Math.min(start, value), Math.max(start, value));
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { start = null; });
  return {draw, onRange: (then) => { chosen = then; }};
})();
