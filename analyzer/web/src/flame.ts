// A trace as lines of a flame graph: one for each request, at all the points that saw it.

import type { Hop, Trace, TraceSpan } from "./api";

export interface Line {
  /** The point nearest to the client. */
  first: TraceSpan;
  /** The point nearest to the server. */
  last: TraceSpan;
  /** From the client to the server. */
  points: TraceSpan[];
  hops: Hop[];
  /** Requests above it. */
  depth: number;
  /** Where it lies in the trace, per cent of the whole. */
  left: number;
  width: number;
}

/** Narrower bars cannot be seen. */
const LEAST_WIDTH = 0.4;

export function flame(trace: Trace): Line[] {
  const spans = new Map(trace.spans.map((span) => [span.id, span]));
  const depths = new Map<number, number>();
  const lines: Line[] = [];
  // Parents come before their children, so a request comes where its first point does.
  for (const span of trace.spans) {
    const path = trace.paths[span.path];
    if (!path || depths.has(span.path)) continue;
    const points = path.spans.map((id) => spans.get(id)).filter((point) => point !== undefined);
    const [first, last] = [points[0], points[points.length - 1]];
    if (!first || !last) continue;
    const parent = first.parent_id === null ? undefined : spans.get(first.parent_id);
    const depth = parent ? (depths.get(parent.path) ?? -1) + 1 : 0;
    depths.set(span.path, depth);
    const whole = Math.max(1, trace.duration_us * 1000);
    const left = Math.min(100 - LEAST_WIDTH, Math.max(0, ((first.start_ns - trace.start_ns) / whole) * 100));
    const width = Math.min(100 - left, Math.max(LEAST_WIDTH, ((first.duration_us * 1000) / whole) * 100));
    lines.push({ first, last, points, hops: path.hops, depth, left, width });
  }
  return lines;
}

/** The name of a point: its process, its tap, or where it is. */
export function pointName(span: TraceSpan): string {
  return span.process?.name ?? span.tap ?? span.observation_point;
}

const PARTS = [
  ["client_process_us", "client processes"], ["client_node_us", "client hosts"], ["network_us", "network"],
  ["server_node_us", "server hosts"], ["server_process_us", "server processes"], ["beyond_us", "beyond what was seen"],
] as const;

/** Where the time went: name, microseconds and share of the sum, without what took none. */
export function breakdown(trace: Trace): [string, number, number][] {
  const sum = PARTS.reduce((all, [key]) => all + trace.breakdown[key], 0);
  return PARTS.filter(([key]) => trace.breakdown[key] > 0).map(([key, name]) => [name, trace.breakdown[key], trace.breakdown[key] / sum]);
}
