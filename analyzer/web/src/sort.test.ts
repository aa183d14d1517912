import { expect, it } from "vitest";
import type { Service } from "./api";
import { nextSort, serviceLabel, sortServices } from "./sort";

const service = (name: string, rate: number) =>
  ({ name, rate, server_ip: "10.0.0.1", server_port: 80, l7_protocol: "HTTP" }) as Service;

it("sorts by any column, and by name among equals", () => {
  const services = [service("b", 1), service("a10", 5), service("a2", 5)];
  const names = (sort: Parameters<typeof sortServices>[1]) => sortServices(services, sort).map(serviceLabel);
  expect(names({ key: "rate", descending: true })).toEqual(["a2:80", "a10:80", "b:80"]);
  expect(names({ key: "name", descending: true })).toEqual(["b:80", "a10:80", "a2:80"]);
});

it("turns the order round when a column is chosen again", () => {
  const byRate = { key: "rate", descending: true } as const;
  expect(nextSort(byRate, "rate")).toEqual({ key: "rate", descending: false });
  expect(nextSort(byRate, "p95_us")).toEqual({ key: "p95_us", descending: true });
  expect(nextSort(byRate, "name")).toEqual({ key: "name", descending: false });
});
