// The model that comes with the package: little stories in simple English, trained by this project (assets/README.md).
// An entry of its own, so that bundlers take the file along only where it is asked for.

/**
 * Where the model lies: `loadModel(storiesModel)` in Node, `loadModel(await (await fetch(storiesModel)).blob())` in a
 * page.
 * GGUF, llama architecture, Q8_0; training data and licence stand in `assets/README.md`.
 */
export const storiesModel: URL = new URL('../assets/stories.gguf', import.meta.url);
