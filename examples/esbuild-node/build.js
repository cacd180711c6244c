// Everything in dist/, with no node_modules: the workers are bundles of their own, where the program looks for them.
import { build } from 'esbuild';

await build({
  entryPoints: {
    main: 'main.js',
    worker: 'smallmind/worker',
    'backend/wasm/pool-thread': 'smallmind/pool-thread',
  },
  outdir: 'dist',
  bundle: true,
  minify: true,
  platform: 'node',
  format: 'esm',
  target: 'node22',
  logLevel: 'warning',
});
