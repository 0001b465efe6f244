// Requests to our own API. Every change carries the page's token.

const token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

export class Refused extends Error {}

/** A key that is new with every event: the same event sent twice is one. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** JSON from the bot. Throws Refused with one line for people. */
export async function get(address) {
  return answer(await reach(address, { headers: { Accept: "application/json" } }));
}

export async function post(address, facts) {
  return answer(await reach(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(facts),
  }));
}

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Refused("claasbot cannot be reached: it may be stopped. Try again in a moment.");
  }
}

async function answer(response) {
  if (response.status === 401) {
    location.assign("/sign-in");
  }
  const facts = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(facts.error ?? `The bot answered with status ${response.status}.`);
  }
  return facts;
}
