// What the server answers; the fields are described in the Rust crate's `query` modules.

export interface Red {
  requests: number;
  rate: number;
  errors: number;
  error_ratio: number;
  client_errors: number;
  server_errors: number;
  timeouts: number;
  p50_us: number;
  p95_us: number;
  p99_us: number;
  max_us: number;
  request_bytes: number;
  response_bytes: number;
  last_s: number;
}

/** More of a server behind a UNIX socket. */
export interface Unix {
  netns: number;
  process: string | null;
}

export interface Service extends Red {
  server_ip: string;
  name: string | null;
  unix: Unix | null;
  server_port: number;
  port_name: string | null;
  protocol: string;
  l7_protocol: string;
  requests_series: number[];
  errors_series: number[];
}

export interface Services {
  from_s: number;
  to_s: number;
  step_s: number;
  services: Service[];
  newest_s: number | null;
}

export interface Edge extends Red {
  client_ip: string;
  client_name: string | null;
  server_ip: string;
  server_name: string | null;
  unix: Unix | null;
  server_port: number;
  port_name: string | null;
  protocol: string;
  l7_protocols: string[];
  byte_tx: number;
  byte_rx: number;
  retrans: number;
  retrans_ratio: number;
  establish_fail: number;
  transfer_fail: number;
  rtt_us: number | null;
}

export interface ServiceMap {
  nodes: { ip: string; name: string | null }[];
  edges: Edge[];
  truncated: boolean;
}

export type Status = "ok" | "client_error" | "server_error" | "timeout" | "unknown";

export interface Span {
  id: string;
  start_ns: number;
  duration_us: number;
  client_ip: string;
  client_name: string | null;
  client_port: number;
  server_ip: string;
  server_name: string | null;
  server_port: number;
  l7_protocol: string;
  request_type: string | null;
  request_domain: string | null;
  request_resource: string | null;
  endpoint: string | null;
  response_status: Status;
  response_code: number | null;
  session: string;
  [field: string]: unknown;
}

export interface Spans {
  spans: Span[];
  next: string | null;
}

/** A request at one point of its trace. */
export interface TraceSpan extends Span {
  observation_point: string;
  tap: string | null;
  process: { pid: number; name: string } | null;
  attributes: Record<string, string>;
  parent_id: string | null;
  parent_rule: string | null;
  parent_confidence: number | null;
  self_us: number;
  depth: number;
  clock_shift_us: number;
  path: number;
}

export interface Hop {
  from: string;
  to: string;
  latency_us: number | null;
  request_us: number;
  response_us: number | null;
}

export interface Trace {
  trace_id: string;
  trace_key: string;
  start_ns: number;
  duration_us: number;
  spans: TraceSpan[];
  paths: { spans: string[]; hops: Hop[] }[];
  breakdown: Record<
    "client_process_us" | "client_node_us" | "network_us" | "server_node_us" | "server_process_us" | "beyond_us", number
  >;
  truncated: string | null;
}

/** What part of time is shown: the last so many seconds, or a fixed range. */
export type TimeRange = { last_s: number } | { from_s: number; to_s: number };

export interface SpanFilter {
  l7_protocol: string;
  service: string;
  status: string;
  min_duration_ms: string;
  text: string;
}

export const noFilter: SpanFilter = { l7_protocol: "", service: "", status: "", min_duration_ms: "", text: "" };

/** An answer that is an error, with the server's sentence. */
export class ApiError extends Error {}

export function rangeQuery(range: TimeRange): URLSearchParams {
  return "last_s" in range
    ? new URLSearchParams({ last: `${range.last_s}s` })
    : new URLSearchParams({ from: String(range.from_s), to: String(range.to_s) });
}

export function spanQuery(range: TimeRange, filter: SpanFilter, before: string | null): URLSearchParams {
  const query = rangeQuery(range);
  for (const key of ["l7_protocol", "service", "status", "text"] as const) {
    const value = filter[key].trim();
    if (value) query.set(key, value);
  }
  const milliseconds = Number(filter.min_duration_ms);
  if (filter.min_duration_ms.trim() && milliseconds > 0) {
    query.set("min_duration_us", String(Math.round(milliseconds * 1000)));
  }
  if (before) query.set("before", before);
  return query;
}

async function get<T>(path: string, query: URLSearchParams, signal: AbortSignal): Promise<T> {
  const response = await fetch(`${path}?${query}`, { signal, headers: { accept: "application/json" } });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const sentence = (body as { error?: unknown } | null)?.error;
    throw new ApiError(typeof sentence === "string" ? sentence : `the server answered with status ${response.status}`);
  }
  return body as T;
}

export const getServices = (range: TimeRange, signal: AbortSignal) =>
  get<Services>("/api/services", rangeQuery(range), signal);

export const getMap = (range: TimeRange, signal: AbortSignal) => get<ServiceMap>("/api/map", rangeQuery(range), signal);

export const getSpans = (range: TimeRange, filter: SpanFilter, before: string | null, signal: AbortSignal) =>
  get<Spans>("/api/spans", spanQuery(range, filter, before), signal);

/** The trace that a request is part of. */
export const getTraceOf = (span: string, signal: AbortSignal) => get<Trace>("/api/traces", new URLSearchParams({ span }), signal);
