// ECharts, with only what the page draws.

import { GraphChart, LineChart } from "echarts/charts";
import { GridComponent, TooltipComponent } from "echarts/components";
import { init, use, type ECharts, type EChartsCoreOption } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import { useEffect, useRef } from "preact/hooks";

use([GraphChart, LineChart, GridComponent, TooltipComponent, CanvasRenderer]);

interface Props {
  option: EChartsCoreOption;
  height: number;
  /** What the drawing shows, for those who do not see it. */
  summary: string;
  onClick?: (data: unknown) => void;
}

export function Chart({ option, height, summary, onClick }: Props) {
  const element = useRef<HTMLDivElement>(null);
  const chart = useRef<ECharts | null>(null);
  const click = useRef(onClick);
  click.current = onClick;

  useEffect(() => {
    const made = init(element.current!);
    chart.current = made;
    made.on("click", (event) => click.current?.(event.data));
    const observer = new ResizeObserver(() => made.resize());
    observer.observe(element.current!);
    return () => {
      observer.disconnect();
      made.dispose();
    };
  }, []);

  useEffect(() => chart.current?.setOption(option, { replaceMerge: ["series"] }), [option]);
  useEffect(() => chart.current?.resize(), [height]);

  return <div ref={element} class="chart" style={{ height: `${height}px` }} role="img" aria-label={summary} />;
}
