// A window of Electron, with or without nodeIntegration: the model is a file that the user chooses.
import { loadModel } from 'smallmind';

const story = document.getElementById('story');
document.querySelector('input').addEventListener('change', async ({ target }) => {
  await using model = await loadModel(target.files[0], { threads: 2 });
  story.textContent = 'Once upon a time';
  for await (const piece of model.generate('Once upon a time', { temperature: 0, maxTokens: 60 })) story.append(piece);
  story.dataset.threads = model.info.threads;
});
