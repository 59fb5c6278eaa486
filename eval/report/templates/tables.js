// Tables sort by the data-value of their cells; cells without one stay last.
for (const table of document.querySelectorAll("table.numbers")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, k) => header.querySelector("button").addEventListener("click", () => {
    const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
    const key = (row) => row.cells[k].dataset.value;
    const compare = (a, b) => Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b, "en", {numeric: true}) : a - b;
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (key(a) === "") - (key(b) === "") || sign * compare(key(a), key(b))));
  }));
}
