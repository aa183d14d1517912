import { expect, test } from "vitest";
import type { Trace, TraceSpan } from "./api";
import { breakdown, flame, pointName } from "./flame";

function span(id: string, path: number, start_us: number, duration_us: number, parent_id: string | null): TraceSpan {
  return { id, path, start_ns: start_us * 1000, duration_us, parent_id, tap: null, observation_point: "rest", process: null } as TraceSpan;
}

const trace: Trace = {
  trace_id: "t", trace_key: "k", start_ns: 0, duration_us: 1000,
  spans: [span("1", 0, 0, 1000, null), span("2", 1, 250, 500, "1"), span("3", 1, 260, 480, "2"), span("4", 2, 300, 1, "3")],
  paths: [{ spans: ["1"], hops: [] }, { spans: ["2", "3"], hops: [{ from: "2", to: "3", latency_us: 20, request_us: 10, response_us: 10 }] }, { spans: ["4"], hops: [] }],
  breakdown: { client_process_us: 0, client_node_us: 0, network_us: 250, server_node_us: 0, server_process_us: 750, beyond_us: 0 },
  truncated: null,
};

test("each request is one line below the request it was made for", () => {
  const lines = flame(trace);
  expect(lines.map((line) => [line.first.id, line.last.id, line.depth])).toEqual([["1", "1", 0], ["2", "3", 1], ["4", "4", 2]]);
  expect(lines.map((line) => [line.left, line.width])).toEqual([[0, 100], [25, 50], [30, 0.4]]);
});

test("the time is shared out among the parts that took any", () => {
  expect(breakdown(trace)).toEqual([["network", 250, 0.25], ["server processes", 750, 0.75]]);
});

test("a point is called by its process, its tap or its place", () => {
  const point = span("1", 0, 0, 1, null);
  expect(pointName(point)).toBe("rest");
  expect(pointName({ ...point, tap: "switch" })).toBe("switch");
  expect(pointName({ ...point, tap: "switch", process: { pid: 1, name: "nginx" } })).toBe("nginx");
});
