import { describe, expect, it } from "vitest";
import type { Edge } from "./api";
import { buildGraph, columnsOf } from "./graph";

function edge(client_ip: string, server_ip: string, server_port: number, more: Partial<Edge> = {}): Edge {
  return {
    client_ip, client_name: null, server_ip, server_name: null, unix: null, server_port, port_name: null, protocol: "tcp",
    l7_protocols: ["HTTP"], requests: 10, rate: 1, errors: 0, error_ratio: 0, client_errors: 0, server_errors: 0,
    timeouts: 0, p50_us: 1, p95_us: 2, p99_us: 3, max_us: 4, request_bytes: 0, response_bytes: 0, last_s: 0,
    byte_tx: 100, byte_rx: 200, retrans: 0, retrans_ratio: 0, establish_fail: 0, transfer_fail: 0, rtt_us: null, ...more,
  };
}

const graphOf = (edges: Edge[]) => buildGraph({ nodes: [], edges, truncated: false });

describe("columnsOf", () => {
  it("puts a service right of its furthest caller", () => {
    const columns = columnsOf(["a", "b", "c", "d"], [
      { source: "a", target: "b" }, { source: "b", target: "c" }, { source: "a", target: "c" }, { source: "a", target: "d" },
    ]);
    expect(Object.fromEntries(columns)).toEqual({ a: 0, b: 1, c: 2, d: 1 });
  });

  it("ends on circles and on services that call themselves", () => {
    const columns = columnsOf(["a", "b", "c"], [
      { source: "a", target: "b" }, { source: "b", target: "a" }, { source: "b", target: "b" }, { source: "b", target: "c" },
    ]);
    expect(Object.fromEntries(columns)).toEqual({ a: 0, b: 1, c: 2 });
  });
});

describe("buildGraph", () => {
  it("draws one line per caller and service and sums its ports", () => {
    const graph = graphOf([
      edge("10.0.0.1", "10.0.0.2", 80, { errors: 1 }),
      edge("10.0.0.1", "10.0.0.2", 443, { l7_protocols: ["TLS"], errors: 4, p95_us: 9 }),
      edge("10.0.0.2", "10.0.0.3", 6379, { server_name: "cache", l7_protocols: ["Redis"] }),
    ]);
    expect(graph.nodes.map((n) => [n.label, n.x])).toEqual([["10.0.0.1", 0], ["10.0.0.2", 1], ["cache", 2]]);
    expect(graph.edges[0]).toMatchObject({ rate: 2, errorRatio: 0.25, p95_us: 9, bytes: 600, protocols: ["HTTP", "TLS"] });
    expect(graph.nodes[1]).toMatchObject({ rate: 2, errorRatio: 0.25, service: "10.0.0.2" });
  });

  it("shows the ports of an address that calls itself as services", () => {
    const graph = graphOf([edge("127.0.0.1", "127.0.0.1", 80), edge("127.0.0.1", "127.0.0.1", 6379)]);
    expect(graph.nodes.map((n) => n.id).sort()).toEqual(["127.0.0.1", "127.0.0.1:6379", "127.0.0.1:80"]);
    expect(graph.columns).toBe(2);
  });

  it("tells UNIX sockets apart by name and namespace, and calls them by their processes", () => {
    const unix = (server_name: string, netns: number, process: string | null) =>
      edge("0.0.0.0", "0.0.0.0", 0, { server_name, unix: { netns, process }, protocol: "other" });
    const graph = graphOf([unix("/run/php.sock", 1, "php-fpm"), unix("/run/php.sock", 2, null), unix("/run/db.sock", 1, "mariadbd")]);
    const servers = graph.nodes.filter((n) => n.service);
    expect(servers.map((n) => n.label)).toEqual(["mariadbd\ndb.sock", "php-fpm\nphp.sock", "php.sock"]);
    expect(servers.map((n) => n.service)).toEqual(["/run/db.sock", "/run/php.sock", "/run/php.sock"]);
    expect(graph.nodes.filter((n) => !n.service).map((n) => n.label)).toEqual(["local processes"]);
  });

  it("leaves out traffic without requests unless asked, and draws nothing of nothing", () => {
    const silent = edge("10.0.0.1", "10.0.0.2", 22, { requests: 0, rate: 0, l7_protocols: [] });
    expect(graphOf([silent]).nodes).toEqual([]);
    expect(buildGraph({ nodes: [], edges: [silent], truncated: false }, false).nodes).toHaveLength(2);
    expect(graphOf([])).toEqual({ nodes: [], edges: [], columns: 0, rows: 0 });
  });
});
