// For windows with nodeIntegration; without it, leave `target` away. Electron's Node has no worker threads in a window,
// so smallmind takes the browser's workers there: by the export condition `browser`, which this target sets.
import { copyFileSync } from 'node:fs';
import webpack from 'webpack';

const { dirname } = import.meta;
// Workers have no `global`, not even there.
const output = { filename: 'page.js', publicPath: 'auto', globalObject: 'globalThis' };
webpack(
  { mode: 'production', context: dirname, target: 'electron-renderer', entry: './page.js', output },
  (error, stats) => {
    if (error) throw error;
    console.log(stats.toString({ preset: 'errors-warnings' }));
    if (stats.hasErrors()) process.exit(1);
    copyFileSync(`${dirname}/index.html`, `${dirname}/dist/index.html`);
  },
);
