// Modal dialogs.

import { button, h } from "./dom.js";

/** Opens a dialog; resolves to its return value when it is closed, which is "" if the user dismissed it. */
export function answerOf(dialog) {
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Asks before something that cannot be undone; resolves to whether the user agreed. */
export async function confirmed(question, yes) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question" },
    h("p", { id: "question" }, question),
    h(
      "div",
      { class: "buttons" },
      button("Go back", { class: "quiet", onclick: () => dialog.close("") }),
      button(yes, { class: "danger", onclick: () => dialog.close("yes") }),
    ),
  );
  addEventListener("hashchange", () => dialog.close(""), { once: true }); // the view that it asked about is gone
  return (await answerOf(dialog)) === "yes";
}
