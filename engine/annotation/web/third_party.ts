// A Vite plugin: writes THIRD_PARTY.txt beside the bundle, with the licence of every package that is
// really in it. A package without a licence text fails the build, so that none ships without.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'vite';

/** Texts for packages that come without one. */
const OWN_TEXTS: Record<string, string> = {
  'onnxruntime-web': 'licenses/onnxruntime.txt',
  'onnxruntime-common': 'licenses/onnxruntime.txt',
};

/** One collector for the page and its workers, which are bundled apart from it. */
export function thirdParty(): { page: Plugin; worker: () => Plugin } {
  const folders = new Set<string>();
  const collect = (ids: Iterable<string>): void => {
    for (const id of ids) {
      const folder = packageFolder(id);
      if (folder) folders.add(folder);
    }
  };
  const worker = (): Plugin => ({
    name: 'third-party-of-workers',
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type === 'chunk') collect(Object.keys(chunk.modules));
      }
    },
  });
  const page: Plugin = {
    name: 'third-party',
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type === 'chunk') collect(Object.keys(chunk.modules));
      }
      const source = [...folders]
        .sort()
        .map(describe)
        .join('\n' + '-'.repeat(78) + '\n\n');
      this.emitFile({ type: 'asset', fileName: 'THIRD_PARTY.txt', source });
    },
  };
  return { page, worker };
}

/** "/x/node_modules/@a/b/dist/c.js?url" -> "/x/node_modules/@a/b" */
function packageFolder(id: string): string | null {
  const match = /^\0?(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id);
  return match?.[1] ?? null;
}

function describe(folder: string): string {
  const { name, version, license } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ) as { name: string; version: string; license: string };
  return `${name} ${version} (${license})\n\n${licenceText(folder, name).trim()}\n`;
}

function licenceText(folder: string, name: string): string {
  const file = readdirSync(folder).find((one) => /^licen[cs]e(\.|$)/i.test(one));
  if (file) return readFileSync(join(folder, file), 'utf8');
  const own = OWN_TEXTS[name] && join(import.meta.dirname, OWN_TEXTS[name]);
  if (own && existsSync(own)) return readFileSync(own, 'utf8');
  throw new Error(`${name} is bundled and has no licence text: add one in third_party.ts`);
}
