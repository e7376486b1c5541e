// The one field of a multipart form that a gateway wants to know: the model. Everything else goes on unread.

/** Headers of one part; those of browsers and SDKs are some hundred bytes. */
const PART_HEADER_BYTES_MAX = 4_096;
/** As long as the name of a model may be in the config, in bytes of UTF-8. */
const VALUE_BYTES_MAX = 800;
/** Parts that are looked at; an upload has a file or two and a handful of settings. */
const PARTS_MAX = 256;

/** Where the value of the first plain field of that name stands in the body; `null` where there is none. */
export function multipartField(body: Buffer, contentType: string, name: string): { readonly start: number; readonly end: number } | null {
  const boundary = /^multipart\/form-data\b.*?;\s*boundary=(?:"([^"]{1,200})"|([^\s;]{1,200}))/i.exec(contentType);
  if (boundary === null) return null;
  const delimiter = Buffer.from(`--${boundary[1] ?? boundary[2]}`);
  let at = body.indexOf(delimiter);
  for (let part = 0; at >= 0 && part < PARTS_MAX; part++) {
    const headersAt = at + delimiter.length + 2;
    const headersEnd = body.indexOf('\r\n\r\n', headersAt - 2);
    if (headersEnd < 0) return null;
    const start = headersEnd + 4;
    at = body.indexOf(delimiter, start);
    if (at < 0 || headersEnd - headersAt > PART_HEADER_BYTES_MAX) continue;
    const disposition = /^content-disposition:\s*form-data\b(.*)$/im.exec(body.toString('latin1', headersAt, headersEnd))?.[1] ?? '';
    if (/;\s*filename\*?=/i.test(disposition)) continue;
    const named = /;\s*name=(?:"([^"]*)"|([^\s;]+))/i.exec(disposition);
    if ((named?.[1] ?? named?.[2]) !== name) continue;
    const end = at - 2;
    return end >= start && end - start <= VALUE_BYTES_MAX ? { start, end } : null;
  }
  return null;
}
