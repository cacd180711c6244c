// A clock for tests that bound how long something computes: what other programs do on the same cores does not count.

/** Milliseconds for which this thread has computed since it began. */
export function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
