// A CommonJS program: smallmind is made of ECMAScript modules, which `import()` loads everywhere, and `require` too
// from Node 22.12 on.
const { storiesModel } = require('smallmind/stories');

async function main() {
  const { loadModel } = await import('smallmind');
  const model = await loadModel(storiesModel, { threads: 2 });
  const { text } = await model.generate('Once upon a time', { temperature: 0, maxTokens: 60 }).result;
  console.log(`Once upon a time${text}\n${model.info.executor}`);
  await model.close();
}

main();
