// The one field of a multipart form that a gateway wants to know: the model. Everything else goes on unread.

/** Headers of one part; those of browsers and SDKs are some hundred bytes. */
const PART_HEADER_BYTES_MAX = 4_096;
/** As long as the name of a model may be in the config, in bytes of UTF-8. */
const VALUE_BYTES_MAX = 800;
/** Parts that are looked at; an upload has a file or two and a handful of settings. */
const PARTS_MAX = 256;

/** Where the values of the plain fields of that name stand in the body, in order; what is empty or no plain text is none. */
export function multipartFields(body: Buffer, contentType: string, name: string): readonly { readonly start: number; readonly end: number }[] {
  const boundary = /^multipart\/form-data\b.*?;\s*boundary=(?:"([^"]{1,200})"|([^\s;]{1,200}))/i.exec(contentType);
  if (boundary === null) return [];
  const delimiter = Buffer.from(`--${boundary[1] ?? boundary[2]}`);
  const fields: { readonly start: number; readonly end: number }[] = [];
  let at = delimiterFrom(body, delimiter, 0);
  for (let part = 0; at >= 0 && part < PARTS_MAX; part++) {
    const headersAt = at + delimiter.length;
    const headersEnd = body.indexOf('\r\n\r\n', headersAt);
    if (headersEnd < 0) break;
    const start = headersEnd + 4;
    at = delimiterFrom(body, delimiter, start);
    const end = at - 2;
    if (at < 0 || headersEnd - headersAt > PART_HEADER_BYTES_MAX || end <= start || end - start > VALUE_BYTES_MAX) continue;
    const disposition = /^content-disposition:\s*form-data\b(.*)$/im.exec(body.toString('latin1', headersAt, headersEnd))?.[1] ?? '';
    if (/;\s*filename\*?=/i.test(disposition)) continue;
    const named = /;\s*name=(?:"([^"]*)"|([^\s;]+))/i.exec(disposition);
    if ((named?.[1] ?? named?.[2]) === name && !body.subarray(start, end).some((byte) => byte < 0x20)) fields.push({ start, end });
  }
  return fields;
}

/**
 * Whether there is one reading of the form's names and no other: by the common grammar alone, all of it, to its end. Parsers differ in
 * what they make of two boundaries, of `name*=`, of quoted pairs and folded lines, and one of them is the server's.
 */
export function isPlainForm(body: Buffer, contentType: string): boolean {
  const boundary = /^multipart\/form-data\s*;\s*boundary=(?:"([^"\\]{1,200})"|([^\s;"]{1,200}))\s*$/i.exec(contentType);
  if (boundary === null) return false;
  const delimiter = Buffer.from(`--${boundary[1] ?? boundary[2]}`);
  let at = delimiterFrom(body, delimiter, 0);
  if (at !== 0) return false;
  for (let part = 0; part < PARTS_MAX; part++) {
    const headersAt = at + delimiter.length;
    if (body.toString('latin1', headersAt, headersAt + 2) === '--') return true;
    const headersEnd = body.indexOf('\r\n\r\n', headersAt);
    if (headersEnd < 0 || headersEnd - headersAt > PART_HEADER_BYTES_MAX) return false;
    const [rest, ...lines] = body.toString('latin1', headersAt, headersEnd).split('\r\n');
    const dispositions = lines.filter((line) => /^content-disposition\b/i.test(line));
    if (rest?.trim() !== '' || dispositions.length !== 1 || !PLAIN_DISPOSITION.test(dispositions[0] as string) || lines.some((line) => /^\s|\n/.test(line))) return false;
    at = delimiterFrom(body, delimiter, headersEnd + 4);
    if (at < 0) return false;
  }
  return false;
}

/** What browsers and SDKs write. */
const PLAIN_DISPOSITION = /^content-disposition: *form-data; *name="[^"\\]*"(; *filename="(?:[^"\\]|\\.)*")?(; *filename\*=[^;\s]+)?\s*$/i;

/** A delimiter is one at the start of a line, with nothing but blanks or two dashes behind it (RFC 2046, 5.1.1). */
function delimiterFrom(body: Buffer, delimiter: Buffer, from: number): number {
  for (let at = body.indexOf(delimiter, from); at >= 0; at = body.indexOf(delimiter, at + 1)) {
    const startsLine = at === 0 || (body[at - 2] === 0x0d && body[at - 1] === 0x0a);
    if (startsLine && /^(--|[ \t]*\r\n)/.test(body.toString('latin1', at + delimiter.length, at + delimiter.length + 64))) return at;
  }
  return -1;
}
