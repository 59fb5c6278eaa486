"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [name, figure] of Object.entries(figures)) {
  const place = document.getElementById(`plot-${name}`);
  if (place && figure) Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});
}
const resizePlots = () => document.querySelectorAll(".plot").forEach((place) => Plotly.Plots.resize(place));
addEventListener("beforeprint", resizePlots);
addEventListener("afterprint", resizePlots);

for (const table of document.querySelectorAll("table.numbers")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, k) => header.querySelector("button").addEventListener("click", () => {
    const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
    const key = (row) => row.cells[k].dataset.value;
    const compare = (a, b) => Number.isNaN(Number(key(a))) ? key(a).localeCompare(key(b), "en", {numeric: true}) : key(a) - key(b);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
  }));
}

const dialog = document.getElementById("picture");
document.querySelector(".gallery").addEventListener("click", (event) => {
  const picture = event.target.closest("button")?.querySelector("img");
  if (!picture) return;
  const large = dialog.querySelector("img");
  large.src = picture.src;
  large.alt = picture.alt;
  dialog.querySelector("p").textContent = picture.title;
  dialog.showModal();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
