// What the rows and columns of the gallery are. A layout has
//   corner: what stands above the heads of the rows,
//   heads: [{label, arm}], the columns; `arm` is the column of the content where it is one, and can be moved,
//   rows: how many there are, and head(at) -> {strong, text},
//   cell(at, k) -> [row, column] of the content, or null; marked(at) -> the column that put the row at its place.
const galleryLayouts = (() => {
  const {columns, promptOf, seeds, word, named} = galleryImages;
  const {methods} = galleryContent;
  const seedHead = (row) => ({strong: `${word} ${seeds[row]}`, text: promptOf(row) || galleryContent.nothing});

  // A row is a seed, one column per arm.
  const arms = (found, visible) => ({
    corner: `${named} and prompt`,
    heads: visible.map((column) => ({label: columns[column].arm, arm: column})),
    rows: found.length,
    head: (at) => seedHead(found[at].row),
    cell: (at, k) => [found[at].row, visible[k]],
    marked: (at) => found[at].column,
  });

  // Scales in rising order, each with the columns of the methods that have it.
  const scalesOf = (shown) => [...new Set(shown.flatMap((method) => method.scales.map(([scale]) => scale)))].sort((a, b) => a - b);
  const at = (method, scale) => method.scales.find(([own]) => own === scale)?.[1];
  const withVisible = (visible) => methods
    .map((method) => ({...method, scales: method.scales.filter(([, column]) => visible.includes(column))}))
    .filter((method) => method.scales.length);

  // A row is a method, a column a scale, all of one seed.
  const methodsByScale = (row, visible) => {
    const shown = withVisible(visible);
    const scales = scalesOf(shown);
    return {
      corner: `Method, of ${word} ${seeds[row]}`,
      heads: scales.map((scale) => ({label: `scale ${scale}`})),
      rows: shown.length,
      head: (k) => ({strong: shown[k].name, text: ""}),
      cell: (k, j) => {
        const column = at(shown[k], scales[j]);
        return column === undefined ? null : [row, column];
      },
      marked: () => null,
    };
  };

  // A row is a seed, a column a scale, all of one method.
  const seedsByScale = (found, name, visible) => {
    const method = withVisible(visible).find((one) => one.name === name) ?? {scales: []};
    return {
      ...arms(found, method.scales.map(([, column]) => column)),
      heads: method.scales.map(([scale, column]) => ({label: `scale ${scale}`, title: columns[column].arm})),
    };
  };
  const columnsOf = (name) => methods.find((method) => method.name === name).scales.map(([, column]) => column);

  return {arms, columnsOf, methodsByScale, seedsByScale};
})();
