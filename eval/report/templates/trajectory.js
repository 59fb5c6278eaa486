// One image under every guidance: rows are arms, columns noise levels.
const recorded = document.getElementById("trajectories") && JSON.parse(document.getElementById("trajectories").textContent);
if (recorded) {
  const table = document.getElementById("trajectory-table");
  const choice = document.getElementById("trajectory-choice").elements.image;
  const frame = (row, column) => {
    const data = recorded.frames[choice.value][row]?.[column];
    return data ? `data:image/webp;base64,${data}` : null;
  };
  const trajectoryGrid = {
    rows: () => recorded.arms.length,
    columns: () => recorded.sigmas.length,
    image: (row, column) => {
      const {seed, prompt} = recorded.images[choice.value];
      const source = frame(row, column);
      return source ? {
        source,
        title: `${recorded.arms[row]}, seed ${seed}, σ ${recorded.sigmas[column]}`,
        caption: `prompt: ${prompt || "(empty)"}`,
        name: recorded.arms[row],
        get others() {
          return recorded.arms.flatMap((name, other) => frame(other, column) ? [{name, source: frame(other, column)}] : []);
        },
        baseline: galleryContent.baseline,
        parameters: null,
      } : null;
    },
    cell: (row, column) => table.querySelector(`button[data-row="${row}"][data-column="${column}"]`),
  };
  const show = () => {
    table.tBodies[0].replaceChildren(...recorded.arms.map((arm, row) => {
      const line = document.createElement("tr");
      const head = line.appendChild(document.createElement("th"));
      head.scope = "row";
      head.textContent = arm;
      recorded.sigmas.forEach((_, column) => {
        const cell = line.appendChild(document.createElement("td"));
        const image = trajectoryGrid.image(row, column);
        if (image) cell.append(imageButton(image, row, column)); else cell.textContent = "–";
      });
      return line;
    }));
    oneTabStop(table);
  };
  wireGrid(trajectoryGrid, table);
  choice.addEventListener("input", show);
  show();
}
