// Plots are drawn when they come near the window and the page has nothing else to do, and all of them before printing.
// plotly.js takes a browser a second or more to start, so the tables and images go first.
const figures = JSON.parse(document.getElementById("figures").textContent);

// What a line of the legend, a symbol and a letter in it, and the axis beside it take, in pixels.
const LEGEND_LINE = 20;
const LEGEND_SYMBOL = 45;
const LEGEND_LETTER = 7;
const AXIS = 60;
// Widths that two plots beside each other, and one alone, have on a sheet of A4 or letter paper on its side.
const PAPER = {half: 470, whole: 950};

const heightAt = (figure, width) => {
  const names = figure.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name ?? "");
  const name = LEGEND_SYMBOL + LEGEND_LETTER * Math.max(0, ...names.map((text) => text.length));
  const columns = Math.max(1, Math.floor((width - AXIS) / name));
  return figure.layout.height + LEGEND_LINE * Math.ceil(names.length / columns);
};
const figureOf = (place) => figures[place.id.slice("plot-".length)];
const isDrawn = (place) => place.classList.contains("js-plotly-plot");

// Unpacking takes a moment and waits for no plot; compiling takes longer and waits for the first one.
const unpacked = {text: ""};
const unpack = async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  unpacked.text = await new Response(stream).text();
};
const ready = new Promise((resolve) => addEventListener("load", () => setTimeout(() => unpack().then(resolve))));

const drawPlot = (place) => {
  if (isDrawn(place) || !unpacked.text) return;
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = unpacked.text;
    document.head.append(script);
  }
  const {data, layout} = figureOf(place);
  Plotly.newPlot(place, data, {...layout, height: place.clientHeight}, {responsive: true, displaylogo: false, displayModeBar: false});
};
const fitPlot = (place) => {
  if (!place.clientWidth) return;
  const height = heightAt(figureOf(place), place.clientWidth);
  place.style.height = `${height}px`;
  if (isDrawn(place)) Plotly.relayout(place, {autosize: true, width: null, height});
};
const fitPaper = (place) => {
  drawPlot(place);
  const width = place.closest(".plots") ? PAPER.half : PAPER.whole;
  const height = heightAt(figureOf(place), width);
  place.style.height = `${height}px`;
  // Printed within the first moments, before plotly.js is unpacked, a plot is a gap.
  if (isDrawn(place)) Plotly.relayout(place, {autosize: false, width, height});
};

const whenIdle = window.requestIdleCallback ?? ((task) => setTimeout(task, 50));
const nearPlots = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    nearPlots.unobserve(entry.target);
    ready.then(() => whenIdle(() => drawPlot(entry.target)));
  }
}, {rootMargin: "400px"});
const plots = [...document.querySelectorAll(".plot")];
plots.forEach((place) => { fitPlot(place); nearPlots.observe(place); });
document.querySelectorAll("details.part").forEach((part) => part.addEventListener("toggle", () => {
  if (part.open) part.querySelectorAll(".plot").forEach(fitPlot);
}));
addEventListener("beforeprint", () => plots.forEach(fitPaper));
addEventListener("afterprint", () => plots.forEach(fitPlot));
