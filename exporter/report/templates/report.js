"use strict";
// Sorts a table by the column whose header is pressed, and the other way round when it is pressed again.
(() => {
  const status = document.getElementById("sorted");
  const keyOf = (row, at) => {
    const cell = row.cells[at];
    const key = cell.dataset.key ?? cell.textContent.trim();
    const number = Number(key);
    return { number, text: key, isMissing: key === "-" || key === "", isNumber: key !== "" && !Number.isNaN(number) };
  };
  const compare = (a, b) =>
    a.isNumber && b.isNumber ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });

  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    headers.forEach((header, at) => {
      header.firstElementChild.addEventListener("click", () => {
        const isDown = header.getAttribute("aria-sort") === "ascending";
        const rows = [...body.rows].map((row) => ({ row, key: keyOf(row, at) }));
        rows.sort((a, b) => {
          if (a.key.isMissing !== b.key.isMissing) return a.key.isMissing ? 1 : -1; // last, either way
          return isDown ? compare(b.key, a.key) : compare(a.key, b.key);
        });
        body.append(...rows.map(({ row }) => row));
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", isDown ? "descending" : "ascending");
        const caption = table.caption.textContent;
        status.textContent = `${caption}: sorted by ${header.textContent}, ${header.getAttribute("aria-sort")}`;
      });
    });
  }
})();
