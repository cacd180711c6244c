// What smallmind needs of Vite: its workers as modules, itself not bundled in advance, and headers that permit threads.
import { defineConfig } from 'vite';

const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

export default defineConfig({
  base: './',
  worker: { format: 'es' },
  optimizeDeps: { exclude: ['smallmind'] },
  server: { headers },
  preview: { headers },
});
