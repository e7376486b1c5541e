// Text that may come from anybody, as it stands in HTML and SVG: in content and in quoted attributes.

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Characters that no XML may hold, whose picture then is not drawn at all. */
// oxlint-disable-next-line no-control-regex
const NOT_XML = /[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/g;

export function escaped(text: string): string {
  return text.toWellFormed().replace(NOT_XML, '\uFFFD').replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
