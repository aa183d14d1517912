import { describe, expect, it } from "vitest";
import { bytes, duration, fieldValue, label, percent, rate, requestText, socket, utc } from "./format";

describe("format", () => {
  it("writes durations in the unit that fits", () => {
    expect([0, 999, 1000, 12_345, 999_499, 999_500, 61_000_000].map(duration)).toEqual([
      "0 µs", "999 µs", "1 ms", "12.3 ms", "999 ms", "1 s", "61 s",
    ]);
  });

  it("writes rates and ratios without false precision", () => {
    expect([0, 0.001, 0.25, 12.34, 999, 1234, 2_500_000].map(rate)).toEqual([
      "0", "<0.01", "0.25", "12.3", "999", "1.23k", "2.5M",
    ]);
    expect([0, 0.0001, 0.025, 0.5, 1].map(percent)).toEqual(["0 %", "<0.1 %", "2.5 %", "50 %", "100 %"]);
  });

  it("writes bytes, times and addresses", () => {
    expect([0, 999, 1500, 1_000_000, 5e12].map(bytes)).toEqual(["0 B", "999 B", "1.5 kB", "1 MB", "5 TB"]);
    expect(utc(0)).toBe("1970-01-01 00:00:00 UTC");
    expect(socket("2001:db8::1", 443)).toBe("[2001:db8::1]:443");
    expect(label("web", "10.0.0.1", 80)).toBe("web:80");
    expect(label(null, "10.0.0.1", 80)).toBe("10.0.0.1:80");
    expect(label("/run/redis.sock", "0.0.0.0", 0)).toBe("/run/redis.sock");
  });

  it("writes the fields of a request", () => {
    expect(fieldValue("duration_us", 1500)).toBe("1.5 ms");
    expect(fieldValue("response_code", 404)).toBe("404");
    expect(fieldValue("attributes", { a: "1" })).toBe('{\n "a": "1"\n}');
    expect(fieldValue("start_ns", 1_500_000_000)).toBe("1970-01-01 00:00:01 UTC (1500000000)");
  });

  it("says the verb of a request once", () => {
    const request = (l7_protocol: string, request_type: string, request_resource: string | null, request_domain: string | null) =>
      requestText({ l7_protocol, request_type, request_resource, request_domain, endpoint: null });
    expect(request("Redis", "GET", "get key", null)).toEqual(["GET", "key"]);
    expect(request("Redis", "PING", "PING", null)).toEqual(["PING", "PING"]);
    expect(request("HTTP", "GET", "/a", "shop.example")).toEqual(["GET", "shop.example/a"]);
    expect(request("DNS", "A", null, "shop.example")).toEqual(["A", "shop.example"]);
  });
});
