// The services table: rate, errors and duration.

import { useState } from "preact/hooks";
import type { Service } from "./api";
import { duration, percent, rate } from "./format";
import { nextSort, serviceFilter, serviceLabel, sortServices, type Sort, type SortKey } from "./sort";
import { Sparkline } from "./sparkline";

const COLUMNS: { key: SortKey; title: string; number: boolean; hint: string }[] = [
  { key: "name", title: "Service", number: false, hint: "Server address and port" },
  { key: "l7_protocol", title: "Protocol", number: false, hint: "Application protocol" },
  { key: "rate", title: "Rate", number: true, hint: "Requests per second" },
  { key: "error_ratio", title: "Errors", number: true, hint: "Client errors, server errors and timeouts of all requests" },
  { key: "p50_us", title: "p50", number: true, hint: "Half of the responses came within this time" },
  { key: "p95_us", title: "p95", number: true, hint: "95 % of the responses came within this time" },
  { key: "p99_us", title: "p99", number: true, hint: "99 % of the responses came within this time" },
];

export function errorLevel(ratio: number): "none" | "some" | "many" {
  return ratio === 0 ? "none" : ratio < 0.05 ? "some" : "many";
}

interface Props {
  services: readonly Service[];
  /** Value of the requests' service filter. */
  selected: string;
  onSelect: (service: Service) => void;
}

export function ServicesTable({ services, selected, onSelect }: Props) {
  const [sort, setSort] = useState<Sort>({ key: "rate", descending: true });
  const slowest = Math.max(...services.map((s) => s.p95_us), 1);
  return (
    <table class="services">
      <thead>
        <tr>
          {COLUMNS.map(({ key, title, number, hint }) => {
            const order = sort.key !== key ? "none" : sort.descending ? "descending" : "ascending";
            return (
              <th key={key} scope="col" class={number ? "number" : undefined} aria-sort={order}>
                <button type="button" title={hint} onClick={() => setSort(nextSort(sort, key))}>
                  {title}
                  <span class="arrow" aria-hidden="true">{order === "none" ? "" : sort.descending ? "↓" : "↑"}</span>
                </button>
              </th>
            );
          })}
          <th scope="col" class="spark-head">Requests over time</th>
        </tr>
      </thead>
      <tbody>
        {sortServices(services, sort).map((s) => (
          <ServiceRow key={`${serviceFilter(s)} ${s.unix?.netns} ${s.protocol} ${s.l7_protocol}`} service={s} slowest={slowest}
            selected={selected === serviceFilter(s)} onSelect={onSelect} />
        ))}
      </tbody>
    </table>
  );
}

function ServiceRow(props: { service: Service; slowest: number; selected: boolean; onSelect: (s: Service) => void }) {
  const { service: s, slowest, selected, onSelect } = props;
  const details = `${s.requests} requests, ${s.client_errors} client errors, ${s.server_errors} server errors, ${s.timeouts} timeouts`;
  return (
    <tr class={selected ? "selected" : undefined} onClick={() => onSelect(s)}>
      <th scope="row" class="service-name">
        <button type="button" title={`Show the requests to ${serviceLabel(s)}`} aria-pressed={selected}
          onClick={(event) => { event.stopPropagation(); onSelect(s); }}>
          {serviceLabel(s)}
        </button>
        {s.name && <span class="address" title={s.unix ? `Network namespace ${s.unix.netns}` : undefined}>{s.unix ? s.unix.process : s.server_ip}</span>}
      </th>
      <td class="protocol"><span class="tag">{s.l7_protocol}</span></td>
      <td class="number" data-label="Rate">{rate(s.rate)}<span class="unit">/s</span></td>
      <td class="number" data-label="Errors" title={details}>
        <span class={`errors ${errorLevel(s.error_ratio)}`}>{percent(s.error_ratio)}</span>
      </td>
      <td class="number" data-label="p50">{duration(s.p50_us)}</td>
      <td class="number bar" data-label="p95">
        <meter min={0} max={slowest} value={s.p95_us} aria-hidden="true" />
        {duration(s.p95_us)}
      </td>
      <td class="number" data-label="p99">{duration(s.p99_us)}</td>
      <td class="spark-cell"><Sparkline requests={s.requests_series} errors={s.errors_series} /></td>
    </tr>
  );
}
