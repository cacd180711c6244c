// What ends a command early: Ctrl-C, a request to terminate, or a reader of our output that went away. The first one
// asks the command to finish, through an AbortSignal; the second ends the process at once.

/** The reason of the signal: the command ended early, on purpose, and what is to be said has been said. */
export class Interrupted extends Error {
  readonly exitCode: number;
  /** Nobody reads stdout any more. */
  readonly isOutputGone: boolean;

  constructor(exitCode: number, isOutputGone = false) {
    super('interrupted');
    this.exitCode = exitCode;
    this.isOutputGone = isOutputGone;
  }
}

const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Starts to listen; it does not keep the process alive.
 * @param onOutputError  called when stdout cannot be written for another reason than that its reader is gone
 */
export function listenForInterruption(onOutputError: (error: Error) => void): AbortSignal {
  const controller = new AbortController();
  for (const [name, exitCode] of Object.entries(SIGNAL_EXIT_CODES)) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(exitCode);
      process.exitCode = exitCode;
      controller.abort(new Interrupted(exitCode));
    });
  }
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (controller.signal.aborted) return;
    const exitCode = error.code === 'EPIPE' ? 0 : 1;
    if (exitCode !== 0) onOutputError(error);
    process.exitCode = exitCode;
    controller.abort(new Interrupted(exitCode, true));
  });
  return controller.signal;
}
