// Dark and light: as the system has it, unless the reader chose otherwise.

import { useEffect, useState } from "preact/hooks";

export type Choice = "system" | "light" | "dark";

const KEY = "wirespan.theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");

function stored(): Choice {
  const value = localStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : "system";
}

export function useTheme(): { choice: Choice; dark: boolean; next: () => void } {
  const [choice, setChoice] = useState<Choice>(stored);
  const [systemDark, setSystemDark] = useState(system.matches);
  useEffect(() => {
    const onChange = () => setSystemDark(system.matches);
    system.addEventListener("change", onChange);
    return () => system.removeEventListener("change", onChange);
  }, []);
  const dark = choice === "system" ? systemDark : choice === "dark";
  useEffect(() => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    localStorage.setItem(KEY, choice);
  }, [dark, choice]);
  const order: Choice[] = ["system", "light", "dark"];
  return { choice, dark, next: () => setChoice(order[(order.indexOf(choice) + 1) % 3] ?? "system") };
}

/** The colours of the drawings, from the style sheet. */
export function colours(): Record<"text" | "muted" | "line" | "surface" | "accent" | "ok" | "warn" | "bad", string> {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("text"), muted: of("muted"), line: of("line"), surface: of("surface"), accent: of("accent"),
    ok: of("ok"), warn: of("warn"), bad: of("bad"),
  };
}
