// The conversation as elements. Gets items in order, keeps the element of each key, and shows text as text only.

import { rendered } from "./markdown.js";

const LABELS = { received: "noted", queued: "noted", leased: "learning…", consumed: "learned", quarantined: "set aside", withdrawn: "taken back" };
const MARKS = { noted: "noted", queued: "learning…", learned: "learned", refused: "not learned" };
const FORMS = {
  feedback: { label: "What should be different? The bot learns from your words.", button: "say-feedback" },
  correct: { label: "What would the right answer have been?", button: "say-correction" },
};

const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class Log {
  /** `act(name, item, text)` is called for what people do on an item. */
  constructor(root, act) {
    this.root = root;
    this.act = act;
    this.elements = new Map();
  }

  /** Make the log show exactly these items: {key, kind, …}. */
  show(items) {
    const wasAtEnd = this.isAtEnd();
    const keys = new Set(items.map((item) => item.key));
    for (const [key, element] of this.elements) {
      if (!keys.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    let before = null;
    for (const item of items) {
      const element = this.elements.get(item.key) ?? this.make(item);
      this.elements.set(item.key, element);
      this.fill(element, item);
      const place = before === null ? this.root.firstElementChild : before.nextElementSibling;
      if (place !== element) this.root.insertBefore(element, place);
      before = element;
    }
    if (wasAtEnd) this.toEnd();
  }

  /** An answer that was being written is finished: its element goes on under the key that it keeps. */
  rename(from, to) {
    const element = this.elements.get(from);
    if (element === undefined) return;
    this.elements.delete(from);
    this.elements.get(to)?.remove();
    this.elements.set(to, element);
  }

  append(key, text) {
    const said = this.elements.get(key)?.querySelector(".said");
    if (!said) return;
    const wasAtEnd = this.isAtEnd();
    said.append(text);
    if (wasAtEnd) this.toEnd();
  }

  isAtEnd() {
    return this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < 80;
  }

  toEnd() {
    this.root.scrollTop = this.root.scrollHeight;
  }

  make(item) {
    return clone(item.kind === "notice" ? "notice-template" : "turn-template");
  }

  fill(element, item) {
    if (item.kind === "notice") this.fillNotice(element, item);
    else this.fillTurn(element, item);
  }

  fillTurn(element, item) {
    element.className = `turn ${item.role}${item.writing ? " writing" : ""}${item.pending ? " pending" : ""}${item.isBeingReplaced ? " replaced" : ""}`;
    element.querySelector(".name").textContent = item.role === "user" ? "You" : "claasbot";
    const badge = element.querySelector(".who .badge");
    badge.hidden = !item.version;
    badge.textContent = item.version ?? "";
    badge.classList.toggle("base", item.version === "base");
    element.querySelector(".remark").textContent = item.remark ?? "";
    const isWhole = item.role === "assistant" && !item.writing;
    (isWhole ? setRich : setText)(element.querySelector(".said"), item.text);
    if (item.role === "assistant" && item.messageKey && !item.writing) this.fillTools(element, item);
  }

  fillTools(element, item) {
    let tools = element.querySelector(".tools");
    if (tools === null) {
      tools = clone("answer-tools-template");
      element.append(tools);
      this.wire(element, tools);
    }
    element.item = item;
    const standing = item.feedback.filter((one) => !one.is_withdrawn).map((one) => one.kind);
    tools.querySelector(".up").setAttribute("aria-pressed", String(standing.includes("thumbs_up")));
    tools.querySelector(".down").setAttribute("aria-pressed", String(standing.includes("thumbs_down")));
    tools.querySelector(".retry").hidden = !item.isLast;
    fillBecame(tools.querySelector(".became"), item);
  }

  wire(element, tools) {
    const form = tools.querySelector(".words");
    const words = form.querySelector("textarea");
    const open = (name) => {
      const isSame = !form.hidden && form.dataset.name === name;
      form.hidden = isSame;
      form.dataset.name = name;
      form.querySelector("label").textContent = FORMS[name].label;
      words.setAttribute("aria-label", FORMS[name].label);
      for (const [other, { button }] of Object.entries(FORMS)) {
        tools.querySelector(`.${button}`).setAttribute("aria-expanded", String(!isSame && other === name));
      }
      if (!isSame) words.focus();
    };
    const close = () => {
      form.hidden = true;
      words.value = "";
      for (const { button } of Object.values(FORMS)) tools.querySelector(`.${button}`).setAttribute("aria-expanded", "false");
    };
    for (const [name, { button }] of Object.entries(FORMS)) {
      tools.querySelector(`.${button}`).addEventListener("click", () => open(name));
    }
    for (const thumb of ["up", "down"]) {
      const button = tools.querySelector(`.${thumb}`);
      button.addEventListener("click", () => {
        const removed = button.getAttribute("aria-pressed") === "true";
        button.setAttribute("aria-pressed", String(!removed));
        this.act("react", element.item, { thumb, removed });
      });
    }
    tools.querySelector(".retry").addEventListener("click", () => this.act("retry", element.item));
    form.querySelector(".cancel").addEventListener("click", close);
    words.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Escape") {
        close();
      }
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await this.act(form.dataset.name, element.item, words.value.trim())) close();
    });
  }

  fillNotice(element, item) {
    element.className = `notice${item.problem ? " problem" : ""}${item.attached ? " attached" : ""}`;
    setText(element.querySelector(".said"), item.text);
    const row = element.querySelector(".tool-row");
    const state = JSON.stringify([item.buttons, item.pressed, item.isPast]);
    if (row.dataset.state === state) return;
    row.dataset.state = state;
    row.replaceChildren(...item.buttons.map((button) => {
      const control = document.createElement("button");
      control.textContent = button.label;
      control.dataset.action = button.action;
      control.disabled = item.isPast !== "" || (item.pressed !== null && button.action !== "compare");
      control.classList.toggle("chosen", item.pressed === button.action);
      control.addEventListener("click", () => this.act("press", item, button.action));
      return control;
    }));
    if (item.isPast) {
      const remark = document.createElement("span");
      remark.className = "muted small";
      remark.textContent = item.isPast;
      row.append(remark);
    }
    if (item.download) {
      const link = document.createElement("a");
      link.className = "button";
      link.href = "/api/export";
      link.download = "";
      link.textContent = "Download";
      row.append(link);
    }
  }
}

/** What became of each piece of feedback with words, newest last. */
function fillBecame(list, item) {
  const told = item.feedback.filter((one) => one.kind === "text" || one.kind === "correction");
  const lines = told.map((one) => {
    const line = document.createElement("li");
    const chip = document.createElement("span");
    const state = one.is_withdrawn ? "withdrawn" : one.state;
    chip.className = `chip state-${state}`;
    chip.textContent = state === "rejected" ? "not learned" : LABELS[state] ?? "noted";
    line.append(chip, " ");
    if (one.learned && state === "consumed") line.append(badge(one.learned), " ");
    const words = document.createElement("span");
    words.className = "quote muted";
    words.textContent = one.kind === "correction" ? `right answer: “${one.text}”` : `“${one.text}”`;
    line.append(words);
    if (one.reason) line.append(`: ${one.reason}`);
    if (one.job_id) line.append(" ", link(`/lessons/${encodeURIComponent(one.job_id)}`, "lesson"));
    return line;
  });
  if (lines.length === 0 && item.mark) {
    const line = document.createElement("li");
    line.textContent = MARKS[item.mark] ?? item.mark;
    lines.push(line);
  }
  list.replaceChildren(...lines);
}

function badge(name) {
  const element = document.createElement("span");
  element.className = "badge";
  element.textContent = name;
  return element;
}

function link(address, text) {
  const element = document.createElement("a");
  element.href = address;
  element.textContent = text;
  return element;
}

function setRich(element, text) {
  if (element.shownText === text) return;
  element.shownText = text;
  element.replaceChildren(...rendered(text));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
