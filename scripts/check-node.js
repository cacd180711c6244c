// Stops with one clear line when the development Node is missing. Plain JavaScript that runs on any Node: `npm test`
// calls it first. The sources run through type stripping, and the tests use what Node 24 offers.

const NEEDED_MAJOR = 24;
const major = Number(process.versions.node.split('.')[0]);

if (major < NEEDED_MAJOR) {
  console.error(`needs Node >= ${NEEDED_MAJOR}, got ${process.versions.node}`);
  console.error('It comes with the dev dependency "node": run `npm ci` here and start through `npm run`.');
  console.error(
    'If it is still missing, install scripts were off: run `npm rebuild node`, or install Node 24 yourself.',
  );
  process.exit(1);
}
