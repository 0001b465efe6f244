// The last two versions on one question, side by side.

import { rendered } from "./markdown.js";
import { post, Refused } from "./net.js";

const by = (id) => document.getElementById(id);

/** Ask both and show what they say; without a question, put the cursor where one goes. */
export async function compare(question) {
  by("compare-question").value = question;
  if (question === "") {
    by("compare-question").focus();
    return;
  }
  by("compare-asked").textContent = question;
  by("compare-wait").textContent = "Asking both versions…";
  by("compare-wait").hidden = false;
  by("compare-sides").hidden = true;
  if (!by("compare-dialog").open) by("compare-dialog").showModal();
  try {
    show(await post("/api/compare", { question }));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    by("compare-wait").textContent = error.message;
  }
}

function show(found) {
  for (const side of ["before", "now"]) {
    by(`${side}-version`).textContent = found[side].version_name;
    by(`${side}-version`).classList.toggle("base", found[side].version_name === "base");
    by(`${side}-text`).replaceChildren(...rendered(found[side].text));
  }
  by("compare-wait").hidden = true;
  by("compare-sides").hidden = false;
}

by("compare-form").addEventListener("submit", (event) => {
  event.preventDefault();
  compare(by("compare-question").value.trim());
});
