// The images of the page by row (a pair of the study) and column (an arm): their bytes, what is known of them, and
// their parameters as text.
const galleryContent = JSON.parse(document.getElementById("gallery-content").textContent);

const galleryImages = (() => {
  const {columns, texts, pairs, seeds, word, whole, parts, block} = galleryContent;
  const baseline = columns.findIndex((own) => own.arm === galleryContent.baseline);
  const rowsBySeed = new Map(seeds.map((seed, row) => [String(seed), row]));

  // Base64 of the images, one line per arm, read block by block.
  const blocks = new Map();
  const source = (row, column) => {
    const k = Math.floor(row / block);
    if (!blocks.has(k)) blocks.set(k, document.getElementById(`images-${k}`).textContent.split("\n"));
    const data = blocks.get(k)[(row % block) * columns.length + column];
    return data && `data:image/webp;base64,${data}`;
  };
  const isHeld = (row, column) => row < whole || parts[row - whole].includes(column);

  const digits = (value) => value === null ? "–" : String(Number(value.toPrecision(3)));
  const labelText = (label) => label && `label: ${label.verdicts.join(", ").replaceAll("_", " ")}${label.simulated ? " (simulated)" : ""}`;
  const caption = (row, column) => {
    const own = columns[column];
    const negative = texts[own.negatives[row]];
    const scores = galleryContent.scores.map((score) => `${score.label} ${digits(own.scores[score.key][row])}`);
    if (own.moved) scores.push(`moved ${digits(own.moved[row])} from ${galleryContent.baseline}`);
    return [
      `prompt: ${texts[own.prompts[row]] || (own.about ? "(not known)" : "(empty)")}`, negative && `negative prompt: ${negative}`, scores.join(", "),
      own.kinds && `kind: ${galleryContent.kinds[own.kinds[row]]}`, labelText(own.labels[row]), own.ids[row],
    ].filter(Boolean).join("\n");
  };
  // As YAML, of which a text in JSON's quotes is a part: what differs between the images of an arm, then what does not.
  const parameters = (row, column) => {
    const own = columns[column];
    // Of an image made elsewhere its file has said what is known.
    if (own.about) return own.about[row];
    return [
      `image: ${own.ids[row]}`, `arm: ${JSON.stringify(own.arm)}`, `${word}: ${seeds[row]}`,
      `prompt: ${JSON.stringify(texts[own.prompts[row]])}`, `negative_prompt: ${JSON.stringify(texts[own.negatives[row]])}`,
      own.parameters,
    ].join("\n");
  };
  const describe = (row, column) => ({
    source: source(row, column),
    title: `${columns[column].arm}, ${word} ${seeds[row]}`,
    caption: caption(row, column),
    name: columns[column].arm,
    // The same seed under the arms, which it can be compared with.
    get others() {
      return columns.flatMap((own, other) => isHeld(row, other) ? [{name: own.arm, source: source(row, other)}] : []);
    },
    baseline: galleryContent.baseline,
    get parameters() { return parameters(row, column); },
  });
  const promptOf = (row) => texts[columns[baseline].prompts[row]];
  const rowOf = (seed) => rowsBySeed.get(String(seed));
  const columnOf = (arm) => columns.findIndex((own) => own.arm === arm);
  // What a row is called at the beginning of a sentence.
  const named = word[0].toUpperCase() + word.slice(1);
  return {columns, pairs, seeds, word, named, whole, baseline, isHeld, digits, describe, promptOf, rowOf, columnOf};
})();
