// A place to drop a file, or to choose one.

import { h, setText } from "./dom.js";
import { bytes } from "./format.js";

const SUFFIXES = [".jsonl", ".ndjson", ".csv", ".parquet", ".txt"];

export class FilePicker {
  file = null;

  /** @param onFiles is called with the files that were dropped or chosen; `choose` then takes one of them. */
  constructor(onFiles) {
    this.input = h("input", {
      type: "file",
      id: "file",
      accept: SUFFIXES.join(","),
      class: "unseen",
      onclick: () => this.clearInput(),
      onchange: () => onFiles(this.input.files),
    });
    this.name = h("p", { class: "picked" }, "No file chosen.");
    this.elements = [this.input, dropZone(onFiles), this.name];
  }

  choose(file) {
    this.file = file;
    setText(this.name, `${file.name}, ${bytes(file.size)}`);
  }

  /** Without this, choosing the same file again after it was corrected would be no change. */
  clearInput() {
    this.input.value = "";
  }
}

function dropZone(onFiles) {
  const mark = (event) => {
    event.preventDefault();
    zone.classList.add("over");
  };
  const unmark = () => zone.classList.remove("over");
  const take = (event) => {
    event.preventDefault();
    unmark();
    onFiles(event.dataTransfer.files);
  };
  const zone = h(
    "label",
    { for: "file", class: "drop", ondragover: mark, ondragleave: unmark, ondrop: take },
    h("b", {}, "Drop a file here, or choose one"),
    h("small", {}, SUFFIXES.join(", ")),
  );
  return zone;
}
