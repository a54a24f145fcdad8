// Columns are sorted by a button in their heads; a second press turns the order round. Empty cells stay last.
const numberOf = (text) => {
  const match = text.replaceAll(",", "").match(/^[<>≤=\s]*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i);
  return match ? Number(match[1]) : NaN;
};
const compare = (one, other) => {
  const [first, second] = [numberOf(one), numberOf(other)];
  return Number.isNaN(first - second) || first === second
    ? one.localeCompare(other, "en", { numeric: true })
    : first - second;
};
const sort = (table, head) => {
  const heads = [...head.parentNode.children];
  const at = heads.indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const cell = (row) => row.cells[at].textContent.trim();
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const [first, second] = [cell(one), cell(other)];
    if (!first || !second) return !first - !second;
    return (down ? -1 : 1) * compare(first, second);
  });
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll(".table table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}
const menu = document.querySelector("details.menu");
menu.addEventListener("click", (event) => {
  if (event.target.closest("a")) menu.open = false;
});
// A link into a folded part opens it
addEventListener("hashchange", () => {
  const folded = document.getElementById(location.hash.slice(1))?.closest("details");
  if (folded) folded.open = true;
});
