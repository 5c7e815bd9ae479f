// The API key: the page asks for it when the server refuses a request without one, and can forget it.

import { answerOf } from "./dialog.js";
import { errorNote, field, h, setText } from "./dom.js";
import { forgetKey, hasKey, keepKey } from "./http.js";
import { retryNow } from "./live.js";

const PRINTABLE = "\\s*[!-~]+\\s*"; // fetch refuses any other character in a header

let dialogIsOpen = false;
let dismissed = false;

/** Asks for a key whenever the server wants one, and calls `onNewKey` when the user has entered it. */
export function watchKey(onNewKey) {
  document.addEventListener("semel:key", ({ detail }) => askForKey(detail, onNewKey));
  showKeyButton();
  document.getElementById("key").addEventListener("click", () => {
    forgetKey();
    location.reload();
  });
}

function showKeyButton() {
  const button = document.getElementById("key");
  button.hidden = !hasKey() && !dismissed;
  setText(button, hasKey() ? "Forget key" : "Enter key");
}

/** Shows one dialog at a time. After the user dismissed it, only requests of theirs open it again. */
async function askForKey({ message, background }, onNewKey) {
  if (dialogIsOpen || (background && dismissed)) return;
  dialogIsOpen = true;
  const key = await answerOf(keyDialog(message));
  dialogIsOpen = false;
  dismissed = !key;
  if (key) keepKey(key);
  showKeyButton();
  if (!key) return;
  retryNow();
  onNewKey();
}

function keyDialog(message) {
  const rules = {
    required: true,
    pattern: PRINTABLE,
    title: "A key has printable ASCII characters only, and no spaces.",
  };
  const input = h("input", { type: "password", autocomplete: "off", ...rules });
  const submit = (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  };
  const form = h(
    "form",
    { onsubmit: submit },
    h("h2", { id: "key-title" }, "This server needs an API key"),
    hasKey() ? errorNote({ message }) : null,
    field("API key", input, "The key stays in this tab. Create one with: semel key"),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Use this key")),
  );
  const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
  return dialog;
}
