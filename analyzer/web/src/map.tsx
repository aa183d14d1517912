// The service map as a drawing, and the same as a list for those who do not see it.

import { useCallback, useMemo } from "preact/hooks";
import type { ServiceMap } from "./api";
import { Chart, MAP_HEIGHT } from "./chart";
import { bytes, duration, percent, rate } from "./format";
import { buildGraph, type Graph, type GraphEdge, type GraphNode } from "./graph";
import { errorLevel } from "./services";
import { colours } from "./theme";

interface Props {
  map: ServiceMap;
  dark: boolean;
  onSelect: (service: string) => void;
}

export function MapView({ map, dark, onSelect }: Props) {
  const graph = useMemo(() => buildGraph(map), [map]);
  const height = Math.min(720, Math.max(MAP_HEIGHT, graph.rows * 76 + 60));
  const draw = useCallback((width: number) => drawing(graph, width, height), [graph, height, dark]);
  const names = new Map(graph.nodes.map((n) => [n.id, n.label]));
  return (
    <>
      <Chart draw={draw} height={height} summary={`Map of ${graph.nodes.length} addresses and ${graph.edges.length} connections`}
        onClick={(data) => {
          const service = (data as { service?: string } | null)?.service;
          if (service) onSelect(service);
        }} />
      <ul class="visually-hidden" aria-label="Who calls whom">
        {graph.edges.map((e) => (
          <li key={`${e.source} ${e.target}`}>
            {names.get(e.source)} calls {names.get(e.target)}: {edgeText(e)}
          </li>
        ))}
      </ul>
    </>
  );
}

function edgeText(e: GraphEdge): string {
  return `${e.protocols.join(", ")}, ${rate(e.rate)} requests/s, ${percent(e.errorRatio)} errors, p95 ${duration(e.p95_us)}`;
}

/** Space around the outermost nodes for their labels, in pixels. */
const MARGIN = { side: 56, top: 34, bottom: 58 };

function drawing(graph: Graph, width: number, height: number) {
  const c = colours();
  const level = { none: c.accent, some: c.warn, many: c.bad };
  const labels = new Map(graph.nodes.map((n) => [n.id, n.label]));
  const busiest = Math.max(...graph.edges.map((e) => e.rate), 1e-9);
  const size = (n: GraphNode) => 26 + 16 * Math.sqrt(Math.min(1, n.rate / busiest));
  // Places in pixels, and a frame of the same size for them: the drawing is not stretched.
  const spaceX = (width - 2 * MARGIN.side) / Math.max(1, graph.columns - 1);
  const spaceY = (height - MARGIN.top - MARGIN.bottom) / Math.max(1, graph.rows - 1);
  const xs = graph.nodes.map((n) => n.x * spaceX);
  const ys = graph.nodes.map((n) => n.y * spaceY);
  const frameX = frame(xs, width, MARGIN.side);
  const frameY = frame(ys, height + MARGIN.top - MARGIN.bottom, MARGIN.top);
  return {
    animation: false,
    tooltip: {
      renderMode: "richText", confine: true, backgroundColor: c.surface, borderColor: c.line, textStyle: { color: c.text, fontSize: 12 },
    },
    series: [{
      type: "graph",
      layout: "none",
      roam: false,
      left: frameX.start, width: frameX.length, top: frameY.start, height: frameY.length,
      edgeSymbol: ["none", "arrow"],
      edgeSymbolSize: 8,
      emphasis: { focus: "adjacency", lineStyle: { width: 4 } },
      data: graph.nodes.map((n, i) => ({
        id: n.id,
        name: n.label,
        service: n.service,
        x: xs[i],
        y: ys[i],
        symbolSize: size(n),
        itemStyle: {
          color: n.service ? level[errorLevel(n.errorRatio)] : c.surface,
          borderColor: n.service ? c.surface : c.muted,
          borderWidth: n.service ? 3 : 2,
        },
        label: {
          show: true, position: "bottom", distance: 6, color: c.text, fontSize: 12, lineHeight: 15,
          formatter: n.protocols.length ? `${n.label}\n{p|${n.protocols.join(" ")}}` : n.label,
          rich: { p: { color: c.muted, fontSize: 10 } },
        },
        tooltip: { formatter: `${n.id.startsWith("unix ") ? n.service : n.label}${n.service ? `\n${rate(n.rate)} requests/s, ${percent(n.errorRatio)} errors` : "\nclient"}` },
      })),
      links: graph.edges.map((e) => ({
        source: e.source,
        target: e.target,
        lineStyle: {
          color: level[errorLevel(e.errorRatio)], width: 1.5 + 2.5 * Math.sqrt(e.rate / busiest), opacity: 0.75,
          curveness: e.source === e.target ? 0.6 : 0.12,
        },
        label: {
          show: true, fontSize: 11, color: c.text, backgroundColor: c.surface, padding: [1, 4], borderRadius: 3,
          formatter: e.errorRatio ? `${rate(e.rate)}/s {e|${percent(e.errorRatio)}}` : `${rate(e.rate)}/s`,
          rich: { e: { color: level[errorLevel(e.errorRatio)], fontSize: 11, fontWeight: "bold" } },
        },
        tooltip: {
          formatter: `${labels.get(e.source)} → ${labels.get(e.target)}\n${edgeText(e)}\n${bytes(e.bytes)}, ${percent(e.retransRatio)} retransmitted`,
        },
      })),
    }],
  };
}

/** Where the places begin and how far they reach, centred. ECharts takes a frame of nothing as two pixels wide. */
function frame(places: number[], space: number, least: number): { start: number; length: number } {
  const length = places.length ? Math.max(...places) - Math.min(...places) : 0;
  const start = Math.max(least, (space - length) / 2);
  return length > 0 ? { start, length } : { start: start - 1, length: 2 };
}
