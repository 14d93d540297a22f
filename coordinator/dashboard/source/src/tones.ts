// The tone in which a state or an event is shown.
import type { Severity } from "./wire";

export type Tone = "good" | "warn" | "bad" | "neutral";

/** The tone of each state; all others are neutral. */
const TONES: Record<string, Tone> = {
  active: "good",
  live: "good",
  ok: "good",
  claimed: "good",
  working: "good",
  limited: "warn",
  unable: "warn",
  "backing off": "warn",
  ready: "neutral",
  paused: "warn",
  watched: "warn",
  draining: "warn",
  inactive: "neutral",
  unregistered: "neutral",
  gone: "neutral",
  done: "neutral",
  dead: "bad",
  flagged: "bad",
  deactivated: "bad",
  revoked: "bad",
};

export function toneOf(word: string): Tone {
  return TONES[word] ?? "neutral";
}

/** The tone of an event.  One of `health` that is not serious says that a client is well again. */
export function eventTone(kind: string, severity: Severity): Tone {
  if (severity === "info") return kind === "health" ? "good" : "neutral";
  return severity === "error" ? "bad" : "warn";
}
