// A server that answers with a story. The model is loaded once and serves every request.
import { createServer } from 'node:http';
import { loadModel } from 'smallmind';
import { storiesModel } from 'smallmind/stories';

const model = loadModel(storiesModel, { threads: 2 });

const server = createServer(async (request, response) => {
  const run = (await model).generate('Once upon a time', { temperature: 0, maxTokens: 60 });
  response.on('close', () => run.stop());
  response.write('Once upon a time');
  for await (const piece of run) response.write(piece);
  response.end();
});
server.listen(process.env.PORT ?? 3000, () => console.log(`http://localhost:${server.address().port}`));
