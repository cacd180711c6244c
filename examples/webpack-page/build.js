// Webpack finds the workers and the model by itself; this is an ordinary configuration, run without its command line.
import { copyFileSync } from 'node:fs';
import webpack from 'webpack';

const { dirname } = import.meta;
webpack(
  { mode: 'production', context: dirname, entry: './page.js', output: { filename: 'page.js' } },
  (error, stats) => {
    if (error) throw error;
    console.log(stats.toString({ preset: 'errors-warnings' }));
    if (stats.hasErrors()) process.exit(1);
    copyFileSync(`${dirname}/index.html`, `${dirname}/dist/index.html`);
  },
);
