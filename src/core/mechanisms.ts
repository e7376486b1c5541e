// What the planner is made of, each of which can be switched off: for the table of what each is worth, never in production.

export interface Mechanisms {
  /** Plan by quantiles of what is left of an answer, given what is there; off: by its mean. */
  readonly lengthQuantiles: boolean;
  /** Prefills delay the streams beside them; off: as if they did not. */
  readonly interference: boolean;
  /** Be ready for what will arrive; off: only for what is here. */
  readonly forecast: boolean;
  /** A stream ahead of its TPOT may be slowed; off: every step must keep the limit. */
  readonly bankedSlack: boolean;
  /** Bands that tune themselves to the attainment wanted; off: the band they start with. */
  readonly guardBands: boolean;
  /** Believed times are corrected by those seen; off: the profile is taken at its word. */
  readonly residuals: boolean;
  /** An idle replica waits at its least power; off: where its last plan left it. */
  readonly parking: boolean;
  /** A prompt is not sent while it would cost streams their TPOT, as long as its own deadline allows; off: sent at once. */
  readonly pacing: boolean;
  /** Work with long slack waits for a replica that runs anyway; off: it goes like any other. */
  readonly holding: boolean;
  /** What a replica has read before it need not read again; off: every prompt costs all of its tokens everywhere. */
  readonly prefixAffinity: boolean;
  /** A raise goes out with the arrival that needs it; off: at the next control period. */
  readonly immediateRaise: boolean;
  /** A point is kept for a while before it is lowered; off: lowered at every period. */
  readonly dwell: boolean;
}

export const ALL_MECHANISMS: Mechanisms = {
  lengthQuantiles: true,
  interference: true,
  forecast: true,
  bankedSlack: true,
  guardBands: true,
  residuals: true,
  parking: true,
  pacing: true,
  holding: true,
  prefixAffinity: true,
  immediateRaise: true,
  dwell: true,
};
