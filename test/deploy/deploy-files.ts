// The deployment files as data, for the tests beside this.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';
import type { Config } from '../../src/config.ts';
import { parseConfig } from '../../src/config.ts';

/** Of Kubernetes, or of anything: its shape is what the tests are about. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Tree = any;

export function documentsOf(path: string): Tree[] {
  return treesOf(readFileSync(path, 'utf8'));
}

export function treesOf(text: string): Tree[] {
  return parseAllDocuments(text, { merge: true })
    .map((document) => {
      if (document.errors.length > 0) throw document.errors[0] as Error;
      return document.toJS() as Tree;
    })
    .filter((tree) => tree !== null);
}

export function yamlOf(path: string): Tree {
  return parse(readFileSync(path, 'utf8'), { merge: true }) as Tree;
}

export function objectOf(documents: readonly Tree[], kind: string, name = 'paceline-gateway'): Tree {
  const found = documents.filter((tree) => tree.kind === kind && tree.metadata.name === name);
  if (found.length !== 1) throw new Error(`${found.length} objects ${kind} ${name}, want one`);
  return found[0];
}

export interface DeployedConfig {
  readonly name: string;
  readonly text: string;
  /** Where its file would be. */
  readonly directory: string;
}

/** Every configuration of a gateway that stands in `deploy/`. */
export function deployedConfigs(): readonly DeployedConfig[] {
  return [
    { name: 'kubernetes', text: objectOf(documentsOf('deploy/kubernetes/gateway.yaml'), 'ConfigMap').data['paceline.yaml'] as string, directory: '/etc/paceline' },
    { name: 'helm', text: JSON.stringify(yamlOf('deploy/helm/paceline/values.yaml').config), directory: '/etc/paceline' },
    { name: 'compose', text: readFileSync('deploy/compose/paceline.yaml', 'utf8'), directory: '/etc/paceline' },
    { name: 'systemd', text: readFileSync('deploy/systemd/gateway.yaml', 'utf8'), directory: '/etc/paceline' },
  ];
}

export const ENVIRONMENT = { PACELINE_ADMIN_KEY: 'sk-operator', REDIS_URL: 'redis://127.0.0.1:1', MODEL_SERVER_KEY: 'sk-replica' };

export function load({ name, text, directory }: DeployedConfig): Config {
  return parseConfig(text, { fileName: name, directory, environment: ENVIRONMENT });
}

/** Where a path of an image or of an installation is in this repository. */
export function here(path: string): string {
  return resolve(path.replace(/^\/(app|opt\/paceline)\//, ''));
}
