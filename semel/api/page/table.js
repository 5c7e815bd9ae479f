// Tables that a narrow screen shows as blocks. Their roles are written out, because display: block would lose them.

import { h } from "./dom.js";

/** A table. */
export function table(caption, columns, rows) {
  const body = tableBody();
  body.append(...rows.map((cells) => tableRow(columns, cells)));
  return tableAround(caption, columns, body);
}

/** An empty body for `tableAround`. */
export function tableBody() {
  return h("tbody", { role: "rowgroup" });
}

/** A table around a body that the caller fills with rows. */
export function tableAround(caption, columns, body, kind = "") {
  const headings = columns.map((column) => h("th", { scope: "col", role: "columnheader" }, column));
  return h(
    "table",
    { role: "table", class: kind },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings)),
    body,
  );
}

/** A row. Each cell carries the name of its column, which a narrow screen shows next to the value. */
export function tableRow(columns, cells, properties = {}) {
  const filled = cells.map((cell, i) => h("td", { role: "cell", "data-label": columns[i] }, cell));
  return h("tr", { role: "row", ...properties }, filled);
}
