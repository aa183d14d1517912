// Requests per second over the range, of all services together.

import { useCallback } from "preact/hooks";
import type { Services } from "./api";
import { Chart, MAP_HEIGHT } from "./chart";
import { rate, timeOfDay } from "./format";
import { colours } from "./theme";

/** Points (milliseconds, per second) of the sum of a series over all services. */
export function totals(answer: Services, series: "requests_series" | "errors_series"): [number, number][] {
  const points = Math.max(0, ...answer.services.map((s) => s[series].length));
  return Array.from({ length: points }, (_, i) => {
    const start = answer.from_s + i * answer.step_s;
    const seconds = Math.max(1, Math.min(answer.step_s, answer.to_s - start));
    const sum = answer.services.reduce((total, s) => total + (s[series][i] ?? 0), 0);
    return [start * 1000, sum / seconds];
  });
}

export function Timeline({ answer, dark }: { answer: Services; dark: boolean }) {
  const draw = useCallback(() => drawing(answer), [answer, dark]);
  return <Chart draw={draw} height={MAP_HEIGHT} summary="Requests and failed requests per second over time" />;
}

function drawing(answer: Services) {
  const c = colours();
  const line = (name: string, colour: string, series: "requests_series" | "errors_series", opacity: number) => ({
    name, type: "line", showSymbol: false, data: totals(answer, series), lineStyle: { color: colour, width: 2 },
    itemStyle: { color: colour }, areaStyle: { color: colour, opacity },
  });
  const label = { color: c.muted, fontSize: 11 };
  return {
    animation: false,
    grid: { left: 8, right: 12, top: 16, bottom: 4, containLabel: true },
    tooltip: {
      trigger: "axis", renderMode: "richText", confine: true, backgroundColor: c.surface, borderColor: c.line,
      textStyle: { color: c.text, fontSize: 12 },
      formatter: (points: { seriesName: string; value: [number, number] }[]) =>
        [timeOfDay((points[0]?.value[0] ?? 0) * 1e6).slice(0, 8), ...points.map((p) => `${p.seriesName}: ${rate(p.value[1])}/s`)].join("\n"),
    },
    xAxis: {
      type: "time", min: answer.from_s * 1000, max: answer.to_s * 1000, axisLabel: { ...label, hideOverlap: true },
      axisLine: { lineStyle: { color: c.line } }, axisTick: { show: false },
    },
    yAxis: {
      type: "value", min: 0, splitNumber: 3, axisLabel: { ...label, formatter: (value: number) => `${rate(value)}/s` },
      splitLine: { lineStyle: { color: c.line } },
    },
    series: [line("Requests", c.accent, "requests_series", 0.12), line("Failed", c.bad, "errors_series", 0.25)],
  };
}
