// The line above the chat that says what is wrong, while something is.

import { get, Refused } from "./net.js";

const EVERY_MS = 5000;
const banner = document.getElementById("banner");
const troubles = new Map();

/** Show `text` until the same source says that all is well again: "". */
export function trouble(source, text) {
  if (text) troubles.set(source, text);
  else troubles.delete(source);
  banner.textContent = [...troubles.values()].join(" ");
  banner.hidden = troubles.size === 0;
}

async function look() {
  try {
    const status = await get("/api/status");
    const down = status.lights.filter((light) => light.state === "down");
    trouble("health", down.map((light) => `${light.name} is down${light.detail ? `: ${light.detail}` : ""}.`).join(" "));
    trouble("learning", status.is_learning ? "" : "Learning is paused by the admin: feedback is kept, and waits.");
  } catch (error) {
    if (!(error instanceof Refused)) throw error; // the stream says that we are cut off
  }
}

look();
setInterval(() => { if (!document.hidden) look(); }, EVERY_MS);
