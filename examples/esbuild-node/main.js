// Tells a story in the terminal.
import { loadModel } from 'smallmind';

await using model = await loadModel(process.argv[2], { threads: 2 });
const run = model.generate('Once upon a time', { temperature: 0, maxTokens: 60 });
process.stdout.write('Once upon a time');
for await (const piece of run) process.stdout.write(piece);
process.stdout.write(`\n${model.info.executor}\n`);
