import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { thirdParty } from './third_party.ts';

const licences = thirdParty();

// Assets go to engine/annotation/web/dist, from where `maskwheel annotate` serves them.
export default defineConfig({
  plugins: [svelte(), licences.page],
  base: '/',
  resolve: {
    // The runtime's wasm and its loader stay files of their own: threads start from them.
    conditions: ['onnxruntime-web-use-extern-wasm', 'module', 'browser', 'import', 'default'],
  },
  worker: { format: 'es', plugins: () => [licences.worker()] },
  build: { target: 'es2022', outDir: 'dist', emptyOutDir: true, assetsInlineLimit: 0 },
  server: { proxy: { '/api': 'http://127.0.0.1:8765' } },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
