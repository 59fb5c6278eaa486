// One picture under every guidance: rows are arms, columns noise levels.
const recorded = document.getElementById("trajectories") && JSON.parse(document.getElementById("trajectories").textContent);
if (recorded) {
  const table = document.getElementById("trajectory-table");
  const choice = document.getElementById("trajectory-choice").elements.picture;
  const trajectoryGrid = {
    rows: () => recorded.arms.length,
    columns: () => recorded.sigmas.length,
    picture: (row, column) => {
      const data = recorded.images[choice.value][row]?.[column];
      const {seed, prompt} = recorded.pictures[choice.value];
      return data ? {
        source: `data:image/webp;base64,${data}`,
        title: `${recorded.arms[row]}, seed ${seed}, σ ${recorded.sigmas[column]}`,
        caption: `prompt: ${prompt || "(empty)"}`,
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
        const picture = trajectoryGrid.picture(row, column);
        if (picture) cell.append(pictureButton(picture, row, column)); else cell.textContent = "–";
      });
      return line;
    }));
    oneTabStop(table);
  };
  wireGrid(trajectoryGrid, table);
  choice.addEventListener("input", show);
  show();
}
