// The service map as a drawing: callers on the left, the services they call further right. The places depend on nothing but
// the edges, so that the map stands still while numbers change.

import type { Edge, ServiceMap } from "./api";
import { label, socket } from "./format";

export interface GraphNode {
  id: string;
  /** What is written under it. */
  label: string;
  /** Filter value that selects requests to it; empty for a mere client. */
  service: string;
  protocols: string[];
  /** Requests per second that it answers, or sends when it answers none. */
  rate: number;
  errorRatio: number;
  x: number;
  y: number;
}

export interface GraphEdge {
  source: string;
  target: string;
  rate: number;
  errorRatio: number;
  protocols: string[];
  p95_us: number;
  bytes: number;
  retransRatio: number;
}

export interface Graph {
  nodes: GraphNode[];
  edges: GraphEdge[];
  columns: number;
  rows: number;
}

/** Addresses that call themselves (loopback, containers in one network): their ports are shown as nodes of their own. */
function selfCallers(edges: readonly Edge[]): Set<string> {
  return new Set(edges.filter((e) => e.client_ip === e.server_ip).map((e) => e.server_ip));
}

/** Column of each node: one more than its furthest caller; edges that would close a circle do not count. */
export function columnsOf(ids: readonly string[], edges: readonly { source: string; target: string }[]): Map<string, number> {
  const callees = new Map<string, string[]>();
  for (const { source, target } of edges) callees.set(source, [...(callees.get(source) ?? []), target]);
  const called = new Set(edges.map((e) => e.target));
  const starts = [...ids.filter((id) => !called.has(id)), ...ids];

  // Depth first: an edge to a node that is still open closes a circle.
  const open = new Set<string>();
  const done = new Set<string>();
  const order: string[] = [];
  const forward: { source: string; target: string }[] = [];
  for (const start of starts) {
    const stack: { id: string; next: number }[] = done.has(start) ? [] : [{ id: start, next: 0 }];
    if (stack.length) open.add(start);
    while (stack.length) {
      const top = stack[stack.length - 1]!;
      const target = callees.get(top.id)?.[top.next];
      if (target === undefined) {
        open.delete(top.id);
        done.add(top.id);
        order.push(top.id);
        stack.pop();
        continue;
      }
      top.next += 1;
      if (open.has(target)) continue;
      forward.push({ source: top.id, target });
      if (!done.has(target)) {
        open.add(target);
        stack.push({ id: target, next: 0 });
      }
    }
  }

  const column = new Map(ids.map((id) => [id, 0]));
  const outgoing = new Map<string, string[]>();
  for (const { source, target } of forward) outgoing.set(source, [...(outgoing.get(source) ?? []), target]);
  for (const id of order.reverse()) {
    for (const target of outgoing.get(id) ?? []) {
      column.set(target, Math.max(column.get(target) ?? 0, (column.get(id) ?? 0) + 1));
    }
  }
  return column;
}

/** Nodes and edges of the map with their places; edges between the same two nodes become one. */
export function buildGraph(map: ServiceMap, onlyRequests = true): Graph {
  const edges = onlyRequests ? map.edges.filter((e) => e.requests > 0) : map.edges;
  const selfCalling = selfCallers(edges);
  const nodes = new Map<string, GraphNode>();
  const joined = new Map<string, GraphEdge & { requests: number; errors: number }>();
  const answered = new Map<string, { requests: number; errors: number; rate: number }>();

  const node = (id: string, text: string) => {
    let found = nodes.get(id);
    if (!found) {
      found = { id, label: text, service: "", protocols: [], rate: 0, errorRatio: 0, x: 0, y: 0 };
      nodes.set(id, found);
    }
    return found;
  };

  const serverNode = (edge: Edge) => {
    if (edge.unix && edge.server_name) {
      // A path is too long to be drawn.
      const file = edge.server_name.slice(edge.server_name.lastIndexOf("/") + 1);
      const found = node(`unix ${edge.unix.netns} ${edge.server_name}`, [edge.unix.process, file].filter(Boolean).join("\n"));
      found.service = edge.server_name;
      return found;
    }
    const byPort = selfCalling.has(edge.server_ip);
    const at = socket(edge.server_ip, edge.server_port);
    const found = byPort ? node(at, label(edge.server_name, edge.server_ip, edge.server_port)) : node(edge.server_ip, edge.server_name ?? edge.server_ip);
    found.service = byPort ? at : edge.server_ip;
    return found;
  };

  for (const edge of edges) {
    const client = edge.unix ? node("unix", "local processes") : node(edge.client_ip, edge.client_name ?? edge.client_ip);
    const server = serverNode(edge);
    server.protocols = [...new Set([...server.protocols, ...edge.l7_protocols])].sort();

    const sums = answered.get(server.id) ?? { requests: 0, errors: 0, rate: 0 };
    sums.requests += edge.requests;
    sums.errors += edge.errors;
    sums.rate += edge.rate;
    answered.set(server.id, sums);

    const key = `${client.id} ${server.id}`;
    const line = joined.get(key) ?? {
      source: client.id, target: server.id, rate: 0, errorRatio: 0, protocols: [], p95_us: 0, bytes: 0,
      retransRatio: 0, requests: 0, errors: 0,
    };
    line.rate += edge.rate;
    line.requests += edge.requests;
    line.errors += edge.errors;
    line.errorRatio = line.requests ? line.errors / line.requests : 0;
    line.protocols = [...new Set([...line.protocols, ...edge.l7_protocols])].sort();
    line.p95_us = Math.max(line.p95_us, edge.p95_us);
    line.bytes += edge.byte_tx + edge.byte_rx;
    line.retransRatio = Math.max(line.retransRatio, edge.retrans_ratio);
    joined.set(key, line);
  }

  const lines = [...joined.values()].map(({ requests: _requests, errors: _errors, ...line }) => line);
  for (const n of nodes.values()) {
    const sums = answered.get(n.id);
    n.rate = sums ? sums.rate : lines.filter((l) => l.source === n.id).reduce((sum, l) => sum + l.rate, 0);
    n.errorRatio = sums?.requests ? sums.errors / sums.requests : 0;
  }
  return place([...nodes.values()], lines);
}

/** Columns from left to right; within a column near to the callers. */
function place(nodes: GraphNode[], edges: GraphEdge[]): Graph {
  nodes.sort((a, b) => a.label.localeCompare(b.label, undefined, { numeric: true }));
  edges.sort((a, b) => `${a.source} ${a.target}`.localeCompare(`${b.source} ${b.target}`, undefined, { numeric: true }));
  const column = columnsOf(nodes.map((n) => n.id), edges);
  const columns = Math.max(0, ...column.values()) + (nodes.length ? 1 : 0);
  const position = new Map<string, number>();
  let rows = 0;
  for (let c = 0; c < columns; c += 1) {
    const members = nodes.filter((n) => column.get(n.id) === c);
    const pull = (n: GraphNode) => {
      const callers = edges.filter((e) => e.target === n.id && position.has(e.source));
      return callers.length ? callers.reduce((sum, e) => sum + (position.get(e.source) ?? 0), 0) / callers.length : 0;
    };
    const pulls = new Map(members.map((n) => [n.id, pull(n)]));
    members.sort((a, b) => (pulls.get(a.id) ?? 0) - (pulls.get(b.id) ?? 0));
    members.forEach((n, row) => {
      n.x = c;
      n.y = row - (members.length - 1) / 2;
      position.set(n.id, n.y);
    });
    rows = Math.max(rows, members.length);
  }
  return { nodes, edges, columns, rows };
}
