// How long a batch may take: OpenAI's "24h", and as an extension whole hours and minutes in Go's words.

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** A week: with results and files kept for a month, longer is a mistake in the unit. */
const WINDOW_MS_MAX = 168 * HOUR_MS;

export const WINDOW_WANTED = "want '24h', or other hours and minutes such as '6h' or '1h30m', from 1m to 168h";

/** `null`: none of these. */
export function completionWindowMs(text: string): number | null {
  const match = /^(?:(\d{1,4})h)?(?:(\d{1,5})m)?$/.exec(text);
  if (match === null) return null;
  const windowMs = Number(match[1] ?? 0) * HOUR_MS + Number(match[2] ?? 0) * MINUTE_MS;
  return windowMs >= MINUTE_MS && windowMs <= WINDOW_MS_MAX ? windowMs : null;
}
