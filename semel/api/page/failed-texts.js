// The failed texts of a job and their reasons. The list is read again when their number changes.

import { button, errorNote, fill, h, setText } from "./dom.js";
import { count } from "./format.js";
import { get } from "./http.js";
import { table } from "./table.js";

const PAGE = 100;

export class FailedTexts {
  rows = [];
  shownCount = 0;
  generation = 0; // counts the requests; an answer to an earlier one is not drawn

  /** @param section to fill; it is hidden while there is no failed text. */
  constructor(section, jobUrl) {
    this.section = section;
    this.jobUrl = jobUrl;
    this.heading = h("h2");
    this.list = h("div");
    this.error = h("div");
    const showMore = () => this.load(this.rows.length + PAGE).catch(() => {}); // the error is shown already
    this.more = button("Show more", { class: "quiet", hidden: true, onclick: showMore });
    section.append(this.heading, this.list, this.error, this.more);
  }

  /** Shows the failed texts, of which there are `failed`; as many as before, but at least one page. */
  async show(failed) {
    this.section.hidden = !failed;
    if (failed === this.shownCount) return;
    setText(this.heading, `Failed: ${count(failed)}`);
    if (failed) await this.load(Math.max(PAGE, this.rows.length));
    this.shownCount = failed;
  }

  async load(wantedRows) {
    this.generation += 1;
    const { generation } = this;
    const rows = [];
    try {
      let page;
      do {
        page = await get(`${this.jobUrl}/failed?limit=${PAGE}&after=${rows.at(-1)?.index ?? -1}`);
        rows.push(...page.data);
      } while (page.has_more && rows.length < wantedRows);
      if (generation !== this.generation) return;
      this.rows = rows;
      this.more.hidden = !page.has_more;
      fill(this.error);
      fill(this.list, table("Failed texts", ["Index", "Id", "Text", "Reason"], rows.map(cells)));
    } catch (error) {
      fill(this.error, errorNote(error));
      throw error;
    }
  }
}

function cells({ index, id, text, error }) {
  const shown = text === null ? "(not shown to this API key)" : text || "–";
  return [count(index), idText(id), h("span", { class: "quoted" }, shown), error.message];
}

function idText(id) {
  if (id === null) return "–";
  return typeof id === "object" ? JSON.stringify(id) : String(id);
}
