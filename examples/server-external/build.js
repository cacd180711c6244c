// What Next.js does with `serverExternalPackages: ['smallmind']`: the server becomes a CommonJS bundle that imports the
// package from node_modules when it runs.
import webpack from 'webpack';

webpack(
  {
    mode: 'production',
    context: import.meta.dirname,
    target: 'node22',
    entry: './server.js',
    output: { filename: 'server.cjs' },
    externalsType: 'import',
    externals: /^smallmind(\/|$)/,
  },
  (error, stats) => {
    if (error) throw error;
    console.log(stats.toString({ preset: 'errors-warnings' }));
    if (stats.hasErrors()) process.exit(1);
  },
);
