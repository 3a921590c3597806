// The benchmark's page, apart from the one that is shipped: `vite build --config bench/vite.config.ts
// --outDir <folder>`.

import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';
import shipped from '../vite.config';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: './',
  resolve: { conditions: shipped.resolve?.conditions ?? [] },
  worker: { format: 'es' },
  build: { target: 'es2022', emptyOutDir: true, assetsInlineLimit: 0 },
});
