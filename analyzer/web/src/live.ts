// Asks the server again and again, one round at a time, and keeps the last good answer.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Live<T> {
  /** The last good answer. */
  data: T | null;
  /** Why the last round failed; null when it did not. */
  error: string | null;
  /** Asks now. */
  refresh: () => void;
}

/** `ask` is called at once when `key` changes, then every `intervalMs` while `running` and the page is visible. */
export function useLive<T>(ask: (signal: AbortSignal) => Promise<T>, key: string, intervalMs: number, running: boolean): Live<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: string | null }>({ key, data: null, error: null });
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;

  useEffect(() => {
    const aborter = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const again = () => {
      if (running) timer = setTimeout(tick, intervalMs);
    };
    const tick = async () => {
      if (document.hidden) return again();
      try {
        const data = await latest.current(aborter.signal);
        if (!aborter.signal.aborted) setState({ key, data, error: null });
      } catch (error) {
        if (aborter.signal.aborted) return;
        const unreachable = error instanceof TypeError;
        const message = unreachable ? "The wirespan server does not answer." : `${(error as Error).message}.`;
        setState((old) => ({ ...old, error: message }));
      }
      if (!aborter.signal.aborted) again();
    };
    void tick();
    return () => {
      aborter.abort();
      clearTimeout(timer);
    };
  }, [key, intervalMs, running, round]);

  const refresh = useCallback(() => setRound((n) => n + 1), []);
  return { data: state.data, error: state.error, refresh };
}
