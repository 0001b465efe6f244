// The playground: what the stream tells becomes state, state becomes the log and the panel. The bot decides, not the page.

import { compare } from "./compare.js";
import { trouble } from "./health.js";
import { Log } from "./log.js";
import { get, newKey, post, Refused } from "./net.js";

const by = (id) => document.getElementById(id);
const consentText = document.querySelector("main").dataset.consentText;

const state = {
  turns: [],
  notices: new Map(),
  echoes: new Map(), // update key → {text, at}: commands that were typed here
  isKnown: false, // whether anything is stored about whoever looks
  waiting: new Map(), // message key → {text, at, isRefused}: said, and not in the transcript yet
  open: null, // the answer that is being written: {replyId, replyTo, text}
  marks: new Map(), // message key → latest mark
  consent: "unasked",
  version: "base",
  isLoaded: false,
};
const log = new Log(by("log"), act);

// --- Stream ---

let stream = null;

function connect() {
  stream?.close();
  stream = new EventSource("/api/stream");
  const on = (kind, handle) => stream.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  on("hello", hello);
  on("said", (data) => said(data.message_key, data.text, data.at));
  on("reply-started", started);
  on("delta", delta);
  on("reply-finished", finished);
  on("notice", noticed);
  on("mark", (data) => { state.marks.set(data.message_key, data.mark); draw(); refreshSoon(); });
  on("reload", connect);
  stream.addEventListener("open", () => trouble("connection", ""));
  stream.addEventListener("error", () => {
    trouble("connection", "The connection to claasbot is interrupted. Trying again…");
    if (stream.readyState === EventSource.CLOSED) setTimeout(checkSession, 2000);
  });
}

/** The stream was refused for good: signed out, or the bot is being restarted. */
async function checkSession() {
  try {
    await get("/api/status");
  } catch {
    // a 401 has sent us to the sign-in page; anything else is tried again
  }
  connect();
}

async function hello(data) {
  state.waiting = new Map(data.waiting.map((one) => [one.message_key, { text: one.text, at: one.at, isRefused: false }]));
  state.open = data.open === null ? null : { replyId: data.open.reply_id, replyTo: data.open.reply_to, text: data.open.text };
  await refresh();
  log.toEnd();
}

function said(key, text, at = "") {
  if (state.answered === key) return;
  state.waiting.set(key, { text, at, isRefused: false });
  draw();
}

function started(data) {
  // An answer to no message is another answer to the last one.
  state.open = { replyId: data.reply_id, replyTo: data.reply_to, text: "", isRetry: data.reply_to === null };
  state.answered = data.reply_to;
  draw();
  log.toEnd();
}

function delta(data) {
  if (state.open?.replyId !== data.reply_id) {
    state.open = { replyId: data.reply_id, replyTo: null, text: "" };
    draw();
  }
  state.open.text += data.text;
  log.append(`o:${data.reply_id}`, data.text);
}

async function finished(data) {
  if (data.notice) {
    state.open = null;
    noticed(data);
    return;
  }
  if (state.open?.replyId === data.reply_id) {
    log.rename(`o:${data.reply_id}`, `c:${data.completion_id}`);
    state.open = null;
  }
  state.waiting.delete(data.reply_to);
  announce(data.text);
  // Shown at once; the transcript that follows says the same.
  if (!state.turns.some((turn) => turn.completion_id === data.completion_id)) {
    state.turns.push({
      id: `new-${data.completion_id}`, role: "assistant", text: data.text, created_at: data.at, completion_id: data.completion_id,
      version_name: data.version_name, finish_reason: data.finish_reason, message_key: data.message_key, fell_back: data.fell_back, feedback: [],
    });
  }
  if (data.fell_back) fellBack.add(data.completion_id);
  await refresh();
}

const fellBack = new Set();

function noticed(data) {
  if (data.data.reset || data.data.forgotten) {
    state.turns = [];
    for (const kept of [state.notices, state.echoes, state.waiting, state.marks]) kept.clear();
  }
  // Shown at once; the transcript that follows says the same. A refusal names a version that does not answer.
  if (data.data.version && data.data.reason === undefined) state.version = data.data.version;
  state.notices.set(data.message_key, data);
  if (data.data.problem) {
    if (state.open?.text === "") state.open = null;
    // Their text stays in sight, to be copied or said otherwise; an answer that comes after all takes them in.
    for (const message of state.waiting.values()) message.isRefused = true;
  }
  announce(data.text);
  draw();
  refreshSoon();
}

// --- Transcript ---

let refreshTimer = null;
let nRefreshes = 0;
function refreshSoon(afterMs = 200) {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, afterMs);
}

async function refresh() {
  const mine = ++nRefreshes;
  try {
    const facts = await get("/api/transcript");
    if (mine !== nRefreshes) return; // a later answer is on its way
    state.turns = facts.turns;
    state.notices = new Map(facts.notices.map((notice) => [notice.message_key, notice]));
    state.consent = facts.consent;
    state.version = facts.version_name;
    state.isKnown = facts.person_id !== null;
    state.isLoaded = true;
    forgetShown();
    draw();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refreshSoon(2000);
  }
}

/** A message whose answer has begun is in the transcript. */
function forgetShown() {
  const replyTo = state.open?.replyTo;
  if (state.waiting.has(replyTo)) {
    for (const key of [...state.waiting.keys()]) {
      state.waiting.delete(key);
      if (key === replyTo) break;
    }
  }
}

// --- Drawing ---

function items() {
  const answers = state.turns.filter((turn) => turn.role === "assistant");
  const last = answers.at(-1)?.completion_id;
  const shown = state.turns.map((turn) => ({ ...turnItem(turn, last), at: turn.created_at }));
  const attached = [];
  for (const notice of state.notices.values()) {
    const item = noticeItem(notice);
    if (item === null) continue;
    if (item.attached) attached.push(item);
    else shown.push(item);
  }
  for (const [key, message] of state.waiting) {
    if (message.isRefused) shown.push({ ...waitingItem(key), remark: "not answered", at: message.at });
  }
  for (const [key, echo] of state.echoes) shown.push({ key: `e:${key}`, kind: "turn", role: "user", ...echo });
  shown.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  for (const item of attached) {
    const place = shown.findIndex((one) => one.key === `c:${item.completionId}`);
    shown.splice(place + 1, 0, item);
  }
  return [...shown, ...unfinished()];
}

function unfinished() {
  const open = state.open === null ? [] : [
    { key: `o:${state.open.replyId}`, kind: "turn", role: "assistant", text: state.open.text, writing: true },
  ];
  const keys = [...state.waiting.keys()].filter((key) => !state.waiting.get(key).isRefused);
  const begun = keys.indexOf(state.open?.replyTo);
  return [...keys.slice(0, begun + 1).map(waitingItem), ...open, ...keys.slice(begun + 1).map(waitingItem)];
}

function waitingItem(key) {
  return { key: `s:${key}`, kind: "turn", role: "user", text: state.waiting.get(key).text, pending: true };
}

function turnItem(turn, last) {
  if (turn.role === "user") return { key: `u:${turn.id}`, kind: "turn", role: "user", text: turn.text };
  const remarks = [];
  if (turn.finish_reason === "abort") remarks.push("stopped");
  if (turn.finish_reason === "length") remarks.push("cut at the length limit");
  if (fellBack.has(turn.completion_id)) remarks.push("your version was not ready, so the base model answered");
  return {
    key: `c:${turn.completion_id}`, kind: "turn", role: "assistant", text: turn.text || "(I have nothing to say to that.)", version: turn.version_name,
    remark: remarks.join(", "), messageKey: turn.message_key, completionId: turn.completion_id, feedback: turn.feedback,
    mark: state.marks.get(turn.message_key), isLast: turn.completion_id === last && state.open === null,
    isBeingReplaced: turn.completion_id === last && state.open?.isRetry === true,
  };
}

/** A notice; null for one that the answer's own line says already. */
function noticeItem(notice) {
  const facts = notice.data;
  const isOnAnswer = facts.noted !== undefined && state.turns.some((turn) => turn.completion_id === facts.completion_id);
  if (isOnAnswer && (notice.buttons.length === 0 || notice.pressed !== null)) return null;
  if (notice.text === consentText && state.consent !== "asked" && state.consent !== "unasked" && notice.pressed === null) return null;
  return {
    key: `n:${notice.message_key}`, kind: "notice", at: notice.at, text: notice.text, buttons: notice.buttons, pressed: notice.pressed,
    messageKey: notice.message_key, completionId: facts.completion_id, attached: isOnAnswer, problem: Boolean(facts.problem),
    download: Boolean(facts.file_name), isPast: facts.said === undefined ? "" : past(facts.version),
  };
}

/** Why the buttons under a lesson's notice do nothing any more; "" while it is the last lesson. */
function past(version) {
  if (version === undefined || version === state.version) return "";
  const number = (name) => Number(name.split(".v")[1] ?? 0);
  return number(version) > number(state.version) ? "undone" : "not the last lesson any more";
}

function draw() {
  const found = items();
  log.show(found);
  by("empty").hidden = !state.isLoaded || found.length > 0;
  by("stop").hidden = state.open === null;
  by("version").textContent = state.version;
  by("version").classList.toggle("base", state.version === "base");
  const learns = state.consent === "granted";
  by("learning-here").textContent = learns ? "learning here: on" : "learning here: off";
  by("consent-state").textContent = learns
    ? "On: what you say about answers in this chat trains your own version."
    : "Off: nothing is learned here until you allow it.";
  by("opt-in").hidden = learns;
  by("opt-out").hidden = !learns;
  const isBase = state.version === "base";
  by("version-state").replaceChildren(...(isBase ? ["The base model answers you: nothing is learned yet."] : versionLine()));
  by("undo").disabled = isBase;
  by("compare").disabled = isBase;
  by("export").setAttribute("aria-disabled", String(!state.isKnown));
  by("export").title = state.isKnown ? "" : "Nothing is stored about you yet.";
  if (state.isKnown) by("export").href = "/api/export";
  else by("export").removeAttribute("href");
}

function versionLine() {
  const name = document.createElement("span");
  name.className = "badge";
  name.textContent = state.version;
  return [name, " answers you."];
}

function announce(text) {
  by("announce").textContent = text;
}

// --- Acting ---

/** Send an event. True when the bot has committed it; a refusal is shown at the composer. */
async function send(kind, facts, key = newKey()) {
  try {
    await post("/api/events", { kind, update_key: key, ...facts });
    complain("");
    return true;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    complain(error.message);
    return false;
  }
}

function complain(text) {
  by("say-error").textContent = text;
  by("say-error").hidden = text === "";
}

async function act(name, item, detail) {
  let isSent = true;
  if (name === "react") {
    isSent = await send("reacted", { message_key: item.messageKey, reaction: detail.thumb === "up" ? "👍" : "👎", removed: detail.removed });
  } else if (name === "press" && detail === "compare") {
    await compare(lastQuestion());
  } else if (name === "press") {
    isSent = await send("pressed", { action: detail, message_key: item.messageKey });
  } else if (name === "retry") {
    isSent = await send("commanded", { command: "retry" });
  } else {
    isSent = await send("commanded", { command: name, argument: detail, message_key: item.messageKey });
  }
  refreshSoon(300);
  return isSent;
}

let unsent = { text: "", key: "" };

async function submit() {
  const text = by("say").value.trim();
  if (text === "") return;
  // The same text after a broken connection goes out under the same key: it is one message.
  if (unsent.text !== text) unsent = { text, key: newKey() };
  by("send").disabled = true;
  const isSent = text.startsWith("/") ? await command(text.slice(1), unsent.key) : await say(text, unsent.key);
  by("send").disabled = false;
  if (isSent) {
    unsent = { text: "", key: "" };
    by("say").value = "";
  }
  by("say").focus();
}

async function say(text, key) {
  said(key, text);
  log.toEnd();
  const isSent = await send("said", { text }, key);
  if (!isSent) {
    state.waiting.delete(key);
    draw();
  }
  return isSent;
}

async function command(line, key) {
  const [name] = line.split(/\s+/);
  const argument = line.slice(name.length).trim();
  echo(`/${line}`, key);
  if (name === "stop") return send("stopped", {}, key);
  if (name === "compare") {
    await compare(argument || lastQuestion());
    return true;
  }
  return send("commanded", { command: name, argument }, key);
}

/** What was typed stays in sight, after all that is there. */
function echo(text, key) {
  const at = items().reduce((latest, item) => (item.at > latest ? item.at : latest), "");
  state.echoes.set(key, { text, at });
  draw();
  log.toEnd();
}

function lastQuestion() {
  return state.turns.filter((turn) => turn.role === "user").at(-1)?.text ?? "";
}

by("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
by("say").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
by("stop").addEventListener("click", () => send("stopped", {}));
by("opt-in").addEventListener("click", () => act("optin", {}, ""));
by("opt-out").addEventListener("click", () => act("optout", {}, ""));
by("undo").addEventListener("click", () => act("undo", {}, ""));
by("reset").addEventListener("click", () => act("reset", {}, ""));
by("forget").addEventListener("click", () => { closePanel(); act("forget", {}, ""); });
by("panel-toggle").addEventListener("click", () => {
  const isOpen = by("panel").classList.toggle("open");
  by("panel-toggle").setAttribute("aria-expanded", String(isOpen));
});

function closePanel() {
  by("panel").classList.remove("open");
  by("panel-toggle").setAttribute("aria-expanded", "false");
}

connect();
by("say").focus();
