// Prune: counts the vectors that meet some conditions, then deletes them.

import { confirmed } from "./dialog.js";
import { busyNote, button, errorNote, field, fill, h, liveRegion, section } from "./dom.js";
import { plural, spaceName } from "./format.js";
import { post } from "./http.js";

const DAY_S = 86_400;
const GIGABYTE_BYTES = 1e9;

export class PruneSection {
  counted = null; // the conditions that were counted last: only what they select may be deleted

  /** @param onChange is called when vectors were deleted. */
  constructor(onChange) {
    this.onChange = onChange;
    this.space = h("select");
    this.days = numberInput();
    this.gigabytes = numberInput();
    this.result = liveRegion();
    this.countButton = h("button", { type: "submit" }, "Count vectors to delete");
    this.deleteButton = button("", { class: "danger", hidden: true, onclick: () => this.askAndDelete() });
    for (const control of [this.space, this.days, this.gigabytes]) {
      control.addEventListener("input", () => this.forgetCount());
    }
    this.element = this.layout();
  }

  layout() {
    const submit = (event) => {
      event.preventDefault();
      this.count();
    };
    const fields = [
      field("Vector space", this.space),
      field("Older than (days)", this.days),
      field("Keep at most (GB)", this.gigabytes),
    ];
    const form = h(
      "form",
      { onsubmit: submit },
      h("div", { class: "fields" }, fields),
      h("div", { class: "buttons" }, this.countButton, this.deleteButton),
    );
    const about =
      "Deletes the vectors that meet every condition you fill in, oldest first. Count them before you delete.";
    return section("Prune", h("p", { class: "why" }, about), form, this.result);
  }

  /** A chosen space stays chosen even if it is gone, so that nothing is deleted from all spaces instead. */
  offerSpaces(spaces) {
    const fingerprints = ["", ...spaces.map((space) => space.fingerprint)];
    const offered = [...this.space.options].map((option) => option.value);
    const chosen = this.space.value;
    const isGone = !fingerprints.includes(chosen);
    if (!isGone && fingerprints.join() === offered.join()) return;
    fill(
      this.space,
      h("option", { value: "" }, "all vector spaces"),
      spaces.map((space) => h("option", { value: space.fingerprint }, spaceName(space))),
      isGone ? h("option", { value: chosen }, `gone (${chosen.slice(0, 8)})`) : null,
    );
    this.space.value = chosen;
  }

  forgetCount() {
    this.counted = null;
    this.deleteButton.hidden = true;
    fill(this.result);
  }

  conditions() {
    return {
      ...(this.space.value && { fingerprint: this.space.value }),
      ...(this.days.value && { older_than_s: Number(this.days.value) * DAY_S }),
      ...(this.gigabytes.value && { max_bytes: Math.round(Number(this.gigabytes.value) * GIGABYTE_BYTES) }),
    };
  }

  async count() {
    this.forgetCount();
    const conditions = this.conditions();
    if (!Object.keys(conditions).length) {
      fill(this.result, errorNote({ message: "Choose a vector space, or enter an age or a size." }));
      return;
    }
    this.counted = conditions;
    fill(this.result, busyNote("Counting …"));
    try {
      const { entries } = await post("v1/cache/prune", { ...conditions, dry_run: true });
      if (this.counted === conditions) this.showCount(entries);
    } catch (error) {
      if (this.counted === conditions) fill(this.result, errorNote(error));
    }
  }

  showCount(entries) {
    const vectors = plural(entries, "vector");
    const some = `${vectors} would be deleted. Vectors that a job still needs are kept.`;
    fill(this.result, h("p", {}, entries ? some : "No vector would be deleted."));
    this.deleteButton.textContent = `Delete ${vectors}`;
    this.deleteButton.hidden = !entries;
  }

  async askAndDelete() {
    const conditions = this.counted;
    const verb = this.deleteButton.textContent;
    const agreed = await confirmed(`${verb}? They must be computed again if a job needs them.`, verb);
    if (!agreed || !conditions) return;
    this.countButton.focus(); // the other button is hidden
    this.forgetCount();
    try {
      const { entries } = await post("v1/cache/prune", { ...conditions, dry_run: false });
      fill(this.result, h("p", { class: "fine" }, `${plural(entries, "vector")} deleted.`));
      this.onChange();
    } catch (error) {
      fill(this.result, errorNote(error));
    }
  }
}

function numberInput() {
  return h("input", { type: "number", min: 0, step: "any", inputmode: "decimal" });
}
