// Folded parts open where a link leads into them, and all of them for paper.
const parts = [...document.querySelectorAll("details.part")];
const openPart = () => {
  // The gallery writes more than a name there, and anybody can write a link.
  const target = document.getElementById(location.hash.slice(1).split("?")[0]);
  const part = target && target.closest("details.part");
  if (part && !part.open) {
    part.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", openPart);
openPart();
let folded = [];
addEventListener("beforeprint", () => {
  folded = parts.filter((part) => !part.open);
  folded.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));
