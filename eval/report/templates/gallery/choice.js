// Which rows the filters let through, and in which order: the `chosen` values of the form decide, and nothing else.
const galleryChoice = (() => {
  const {columns, isHeld, pairs, whole} = galleryImages;

  const bounds = (chosen) => [chosen.low, chosen.high].map((bound) => bound === "" ? null : Number(bound));
  const isLabelled = (wanted) => ({
    "": () => true,
    none: (label) => !label,
    undecided: (label) => label && label.majority === null,
  })[wanted] ?? ((label) => label?.majority === wanted);

  const filter = (chosen) => {
    const text = chosen.text.trim().toLowerCase();
    const [low, high] = bounds(chosen);
    const labelled = isLabelled(chosen.label);
    return (row, column) => {
      const own = columns[column];
      const value = own.scores[chosen.score][row];
      return isHeld(row, column)
        && (!text || galleryContent.texts[own.prompts[row]].toLowerCase().includes(text))
        && (low === null || (value !== null && value >= low))
        && (high === null || (value !== null && value <= high))
        && (chosen.kind === "" || own.kinds?.[row] === Number(chosen.kind))
        && labelled(own.labels[row]);
    };
  };
  const valueOf = (chosen) => chosen.view === "moved"
    ? (row, column) => columns[column].moved?.[row] ?? null
    : (row, column) => columns[column].scores[chosen.score][row];

  // `candidates` are the columns of which one must pass. -> {rows: [{row, column}], of}: `column` is what put the row
  // at its place, null where rows stay in the order of seeds; `of` counts the rows that were looked through.
  const choose = (chosen, candidates) => {
    const pass = filter(chosen);
    const value = valueOf(chosen);
    const better = galleryContent.scores.find((score) => score.key === chosen.score).better;
    const falling = chosen.view === "moved" || (chosen.view === "best") === (better !== "lower");
    const isOrdered = chosen.view !== "seeds";
    const before = (a, b) => (falling ? b - a : a - b);
    const rows = [];
    // Rows after `whole` were selected by their scores, so the order of seeds leaves them out.
    const of = isOrdered ? pairs.length : whole;
    for (let row = 0; row < of; row++) {
      let found = candidates.filter((column) => pass(row, column));
      if (isOrdered) found = found.filter((column) => value(row, column) !== null);
      if (!found.length) continue;
      const [first] = isOrdered ? [...found].sort((a, b) => before(value(row, a), value(row, b))) : [null];
      rows.push({row, column: first});
    }
    if (isOrdered) rows.sort((a, b) => before(value(a.row, a.column), value(b.row, b.column)) || a.row - b.row);
    return {rows, of};
  };

  // The chosen score of every image in the page, of these columns.
  const scores = (chosen, candidates) => candidates.flatMap((column) =>
    columns[column].scores[chosen.score].filter((value, row) => value !== null && isHeld(row, column)));

  // Whether an image is one of the candidates and does not pass: it is there because another of its row does.
  const isOutside = (chosen, candidates) => {
    const pass = filter(chosen);
    return (row, column) => candidates.includes(column) && !pass(row, column);
  };

  return {bounds, choose, isOutside, scores, valueOf};
})();
