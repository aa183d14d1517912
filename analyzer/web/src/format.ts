// Numbers, times and requests as people read them.

import type { Span } from "./api";

/** Three significant digits, without zeros at the end. */
function short(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

/** Microseconds: `850 µs`, `12.3 ms`, `1.24 s`. */
export function duration(us: number): string {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 999_500) return `${short(us / 1000)} ms`;
  return `${short(us / 1_000_000)} s`;
}

/** Events per second: `0.02`, `12.5`, `1.2k`. */
export function rate(perSecond: number): string {
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "<0.01";
  if (perSecond < 999.5) return short(perSecond);
  if (perSecond < 999_500) return `${short(perSecond / 1000)}k`;
  return `${short(perSecond / 1_000_000)}M`;
}

/** A ratio as per cent: `0 %`, `<0.1 %`, `2.5 %`, `100 %`. */
export function percent(ratio: number): string {
  const value = ratio * 100;
  if (value === 0) return "0 %";
  if (value < 0.1) return "<0.1 %";
  return `${value >= 10 ? Math.round(value) : Number(value.toFixed(1))} %`;
}

/** Bytes in powers of 1000. */
export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = count / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${short(value)} ${units[unit]}`;
}

const two = (n: number) => String(n).padStart(2, "0");

/** Local time of day with milliseconds. */
export function timeOfDay(ns: number): string {
  const date = new Date(ns / 1e6);
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** Date and time in UTC. */
export function utc(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** `IP:PORT`, with brackets around IPv6. */
export function socket(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** A name where there is one, else the address, and the port, which UNIX sockets have none of. */
export function label(name: string | null, ip: string, port: number): string {
  if (!name) return socket(ip, port);
  return port ? `${name}:${port}` : name;
}

/** A field's value in the details of a request. */
export function fieldValue(name: string, value: unknown): string {
  if (name.endsWith("_ns") && typeof value === "number") return `${utc(value / 1e9)} (${value})`;
  if (name.endsWith("duration_us") && typeof value === "number") return duration(value);
  if (name.endsWith("_bytes") && typeof value === "number") return bytes(value);
  return typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
}

/** What was asked: the verb, and of what. Where the text itself begins with the verb (Redis), it is said once. */
export function requestText(span: Pick<Span, "l7_protocol" | "request_type" | "request_domain" | "request_resource" | "endpoint">): [string, string] {
  const verb = span.request_type ?? "";
  const what = span.request_resource ?? span.endpoint ?? span.request_domain ?? "";
  if (verb && what.toUpperCase().startsWith(`${verb.toUpperCase()} `)) return [verb, what.slice(verb.length + 1)];
  const host = span.l7_protocol === "HTTP" && span.request_domain !== what ? (span.request_domain ?? "") : "";
  return [verb, `${host}${what}`];
}
