import { describe, expect, it } from "vitest";
import { noFilter, rangeQuery, spanQuery } from "./api";

describe("queries", () => {
  it("asks for a moving or a fixed range", () => {
    expect(String(rangeQuery({ last_s: 900 }))).toBe("last=900s");
    expect(String(rangeQuery({ from_s: 1, to_s: 2 }))).toBe("from=1&to=2");
  });

  it("sends only the filters that are set", () => {
    expect(String(spanQuery({ last_s: 60 }, noFilter, null))).toBe("last=60s");
    const filter = { ...noFilter, text: " a&b ", status: "error", min_duration_ms: "1.5" };
    expect(String(spanQuery({ last_s: 60 }, filter, "17.3"))).toBe(
      "last=60s&status=error&text=a%26b&min_duration_us=1500&before=17.3",
    );
    expect(String(spanQuery({ last_s: 60 }, { ...noFilter, min_duration_ms: "abc" }, null))).toBe("last=60s");
  });
});
