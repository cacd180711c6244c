// Tells a story in the page.
import { loadModel } from 'smallmind';
import { storiesModel } from 'smallmind/stories';

const story = document.getElementById('story');
const model = await loadModel(storiesModel, { threads: 2 });
story.textContent = 'Once upon a time';
for await (const piece of model.generate('Once upon a time', { temperature: 0, maxTokens: 60 })) story.append(piece);
story.dataset.threads = model.info.threads;
