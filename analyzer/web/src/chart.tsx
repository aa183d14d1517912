// ECharts, with only what the page draws.

import { GraphChart, LineChart } from "echarts/charts";
import { GridComponent, TooltipComponent } from "echarts/components";
import { init, use, type ECharts, type EChartsCoreOption } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import { useEffect, useRef, useState } from "preact/hooks";

use([GraphChart, LineChart, GridComponent, TooltipComponent, CanvasRenderer]);

/** Least height of the map, and that of the drawing beside it. */
export const MAP_HEIGHT = 300;

interface Props {
  /** The drawing for a width in pixels. */
  draw: (width: number) => EChartsCoreOption;
  height: number;
  /** What the drawing shows, for those who do not see it. */
  summary: string;
  onClick?: (data: unknown) => void;
}

export function Chart({ draw, height, summary, onClick }: Props) {
  const element = useRef<HTMLDivElement>(null);
  const chart = useRef<ECharts | null>(null);
  const [width, setWidth] = useState(0);
  const click = useRef(onClick);
  click.current = onClick;

  useEffect(() => {
    const made = init(element.current!);
    chart.current = made;
    made.on("click", (event) => click.current?.(event.data));
    const observer = new ResizeObserver(() => setWidth(element.current?.clientWidth ?? 0));
    observer.observe(element.current!);
    return () => {
      observer.disconnect();
      made.dispose();
    };
  }, []);

  useEffect(() => {
    if (!width) return;
    chart.current?.resize({ width, height });
    chart.current?.setOption(draw(width), { replaceMerge: ["series"] });
  }, [draw, width, height]);

  return <div ref={element} class="chart" style={{ height: `${height}px` }} role="img" aria-label={summary} />;
}
