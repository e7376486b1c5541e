// The certificate of a listener: read and checked as a pair with its key, and read again when the files change.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { watchFiles } from '../config/file-watch.ts';

export interface CertificatePaths {
  readonly certPath: string;
  readonly keyPath: string;
}

export interface Certificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  readonly subject: string;
  readonly expiresAtUnixMs: number;
}

/** The files cannot be used; the message names the one that is wrong by its key in the configuration. */
export class CertificateError extends Error {
  override name = 'CertificateError';
}

/** Reads and checks the pair. Throws `CertificateError`. One that has expired passes: it may still be what is wanted. */
export function readCertificate({ certPath, keyPath }: CertificatePaths): Certificate {
  const cert = read('certFile', certPath);
  const key = read('keyFile', keyPath);
  const first = parsed('certFile', certPath, 'a PEM certificate', () => new X509Certificate(cert));
  const privateKey: KeyObject = parsed('keyFile', keyPath, 'a PEM private key without a passphrase', () => createPrivateKey(key));
  if (!first.checkPrivateKey(privateKey)) throw new CertificateError(`listen.tls.keyFile: ${keyPath} is not the key of the certificate in ${certPath}`);
  // What follows the first certificate in the file is looked at here only.
  parsed('certFile', certPath, 'a chain of PEM certificates', () => createSecureContext({ cert, key }));
  return { cert, key, subject: first.subject, expiresAtUnixMs: Date.parse(first.validTo) };
}

export interface CertificateWatch {
  /** Reads the files now, changed or not. */
  reload(): void;
  close(): void;
}

/** Looks every `everyMs` whether the files are others. */
export function watchCertificate(
  paths: CertificatePaths,
  options: { readonly everyMs: number; readonly changed: (certificate: Certificate) => void; readonly broken: (why: string) => void },
): CertificateWatch {
  function reload(): void {
    // Before the files are read: what changes in between is found by the next look.
    watch.seen();
    let certificate: Certificate;
    try {
      certificate = readCertificate(paths);
    } catch (error) {
      if (!(error instanceof CertificateError)) throw error;
      return options.broken(error.message);
    }
    options.changed(certificate);
  }

  const watch = watchFiles(() => [paths.certPath, paths.keyPath], { everyMs: options.everyMs, changed: reload });
  return { reload, close: watch.close };
}

function read(name: 'certFile' | 'keyFile', path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new CertificateError(`listen.tls.${name}: ${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
}

function parsed<Value>(name: 'certFile' | 'keyFile', path: string, wanted: string, parse: () => Value): Value {
  try {
    return parse();
  } catch (cause) {
    throw new CertificateError(`listen.tls.${name}: ${path} is not ${wanted}: ${messageOf(cause)}`, { cause });
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
