// The order of the services table.

import type { Service } from "./api";
import { label, socket } from "./format";

export type SortKey = "name" | "l7_protocol" | "rate" | "error_ratio" | "p50_us" | "p95_us" | "p99_us";

export interface Sort {
  key: SortKey;
  descending: boolean;
}

/** Choosing the same column again turns it round; text begins upwards, numbers with the largest. */
export function nextSort(current: Sort, key: SortKey): Sort {
  if (current.key === key) return { key, descending: !current.descending };
  return { key, descending: key !== "name" && key !== "l7_protocol" };
}

export function serviceLabel(service: Service): string {
  return label(service.name, service.server_ip, service.server_port);
}

/** Value of the requests' filter that selects those to it. */
export function serviceFilter(service: Service): string {
  return service.unix && service.name ? service.name : socket(service.server_ip, service.server_port);
}

export function sortServices(services: readonly Service[], sort: Sort): Service[] {
  const value = (service: Service) => (sort.key === "name" ? serviceLabel(service) : service[sort.key]);
  const sign = sort.descending ? -1 : 1;
  return [...services].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const order =
      typeof x === "number" && typeof y === "number"
        ? x - y
        : String(x).localeCompare(String(y), undefined, { numeric: true });
    return order * sign || serviceLabel(a).localeCompare(serviceLabel(b), undefined, { numeric: true });
  });
}
