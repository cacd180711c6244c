// Tells a story as it is made. The model runs in a worker, so the page stays awake and the button can stop it.
import { loadModel } from 'smallmind';
import { storiesModel } from 'smallmind/stories';

const find = (id) => document.getElementById(id);
const [prompt, temperature, tell, story, status] = ['prompt', 'temperature', 'tell', 'story', 'status'].map(find);
const loading = loadModel(storiesModel, { threads: 2 });
let run;

async function tellStory() {
  const model = await loading;
  story.textContent = prompt.value;
  tell.textContent = 'Stop';
  run = model.generate(prompt.value, { temperature: temperature.valueAsNumber, maxTokens: 200 });
  for await (const piece of run) story.append(piece);
  const { finishReason, timings } = await run.result;
  const speed = `${Math.round(timings.decodeTokensPerSecond)} tokens a second, ${model.info.threads} threads`;
  status.textContent = finishReason === 'abort' ? `Stopped. ${speed}` : speed;
}

document.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (run) return run.stop();
  tellStory()
    .catch((error) => (status.textContent = error.message))
    .finally(() => {
      run = undefined;
      tell.textContent = 'Tell it';
    });
});

loading.then(
  () => (status.textContent = 'Ready. It runs on this device, and nothing leaves it.'),
  (error) => (status.textContent = error.message),
);
