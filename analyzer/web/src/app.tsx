// The page: what is asked of the server and how the parts are put together.

import { useEffect, useMemo, useState } from "preact/hooks";
import { getMap, getServices, getSpans, noFilter, rangeQuery, spanQuery, type Services, type Span, type TimeRange } from "./api";
import { duration, percent, rate, utc } from "./format";
import { useLive } from "./live";
import { MapView } from "./map";
import { RequestDetail, RequestFilters, RequestsTable } from "./requests";
import { errorLevel, ServicesTable } from "./services";
import { serviceFilter } from "./sort";
import { useTheme } from "./theme";
import { Timeline } from "./timeline";

const REFRESH_MS = 2000;

const RANGES: [string, number][] = [
  ["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600], ["3 hours", 10_800], ["12 hours", 43_200], ["1 day", 86_400],
];

export function App() {
  const theme = useTheme();
  const [range, setRange] = useState<TimeRange>({ last_s: 900 });
  const [live, setLive] = useState(true);
  const [filter, setFilter] = useState(noFilter);
  const [before, setBefore] = useState<string | null>(null);
  const [open, setOpen] = useState<Span | null>(null);

  const running = live && "last_s" in range;
  const overview = useLive(
    async (signal) => {
      const [services, map] = await Promise.all([getServices(range, signal), getMap(range, signal)]);
      return { services, map };
    },
    String(rangeQuery(range)), REFRESH_MS, running,
  );
  const settled = useSettled(filter, 250);
  const requests = useLive(
    (signal) => getSpans(range, settled, before, signal),
    String(spanQuery(range, settled, before)), REFRESH_MS, running && !before,
  );

  const services = overview.data?.services ?? null;
  const protocols = useMemo(() => [...new Set(services?.services.map((s) => s.l7_protocol) ?? [])].sort(), [services]);
  const changeFilter = (next: typeof filter) => {
    setFilter(next);
    setBefore(null);
  };
  const showService = (service: string) => {
    changeFilter({ ...filter, service: filter.service === service ? "" : service });
  };
  const changeRange = (next: TimeRange) => {
    setRange(next);
    setBefore(null);
  };
  const error = overview.error ?? (settled.service ? null : requests.error);

  return (
    <>
      <a class="skip" href="#services">Skip to the services</a>
      <header class="top">
        <h1><img src="/assets/logo.svg" alt="" width="28" height="28" />wirespan</h1>
        <div class="controls">
          <RangePicker range={range} onChange={changeRange} />
          <button type="button" class={`live ${running ? "on" : ""}`} aria-pressed={live} onClick={() => setLive(!live)}
            title={live ? "Stop refreshing" : "Refresh every 2 seconds"} disabled={!("last_s" in range)}>
            <span class="dot" aria-hidden="true" />{running ? "Live" : "Paused"}
          </button>
          <button type="button" onClick={theme.next} title={`Colours: ${theme.choice}`} aria-label={`Colours: ${theme.choice}`}>
            {theme.choice === "system" ? "◐" : theme.choice === "dark" ? "☾" : "☀"}
          </button>
        </div>
      </header>
      <main>
        {error && <p class="banner" role="alert">{error} Trying again every 2 seconds; what is shown is the last answer.</p>}
        {services && <Summary answer={services} />}
        <section id="services" class="card" aria-labelledby="services-title">
          <h2 id="services-title">Services</h2>
          {!services ? <Waiting failed={overview.error !== null} />
            : services.services.length === 0 ? <Empty answer={services} range={range} onRange={changeRange} />
            : <div class="scroll"><ServicesTable services={services.services} selected={filter.service}
                onSelect={(s) => showService(serviceFilter(s))} /></div>}
        </section>
        {overview.data && services && services.services.length > 0 && (
          <div class="pair">
            <section class="card" aria-labelledby="map-title">
              <h2 id="map-title">Service map</h2>
              <MapView map={overview.data.map} dark={theme.dark} onSelect={showService} />
            </section>
            <section class="card" aria-labelledby="timeline-title">
              <h2 id="timeline-title">Requests over time</h2>
              <Timeline answer={services} dark={theme.dark} />
            </section>
          </div>
        )}
        <section class="card" aria-labelledby="requests-title">
          <h2 id="requests-title">Latest requests</h2>
          <RequestFilters filter={filter} protocols={protocols} onChange={changeFilter} />
          {requests.error && <p class="note bad" role="status">{requests.error}</p>}
          {!requests.data ? <Waiting failed={requests.error !== null} />
            : requests.data.spans.length === 0 ? <p class="note">No request matches the filters in this time range.</p>
            : <div class="scroll"><RequestsTable spans={requests.data.spans} onOpen={setOpen} /></div>}
          <div class="pages">
            {before && <button type="button" onClick={() => setBefore(null)}>Back to the latest</button>}
            {requests.data?.next && <button type="button" onClick={() => setBefore(requests.data!.next)}>Older requests</button>}
          </div>
        </section>
      </main>
      <footer>
        The same answers for programs: <a href="/api/services">services</a>, <a href="/api/map">map</a>,{" "}
        <a href="/api/spans">requests</a>, <a href="/api/flows">flows</a>, <a href="/metrics">metrics</a>, and SQL at <code>/api/sql</code>.
      </footer>
      <RequestDetail span={open} onSelect={setOpen} onClose={() => setOpen(null)} />
    </>
  );
}

/** The value once it has not changed for a while. */
function useSettled<T>(value: T, ms: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

function RangePicker({ range, onChange }: { range: TimeRange; onChange: (range: TimeRange) => void }) {
  const value = "last_s" in range ? String(range.last_s) : "fixed";
  return (
    <label class="range">
      <span class="visually-hidden">Time range</span>
      <select value={value} onChange={(event) => onChange({ last_s: Number(event.currentTarget.value) })}>
        {RANGES.map(([text, seconds]) => <option key={seconds} value={String(seconds)}>Last {text}</option>)}
        {"from_s" in range && <option value="fixed" disabled>{utc(range.from_s)} to {utc(range.to_s).slice(11)}</option>}
      </select>
    </label>
  );
}

function Summary({ answer }: { answer: Services }) {
  const { services } = answer;
  const requests = services.reduce((sum, s) => sum + s.requests, 0);
  const errors = services.reduce((sum, s) => sum + s.errors, 0);
  const ratio = requests ? errors / requests : 0;
  const slowest = services.reduce<(typeof services)[number] | null>((a, b) => (!a || b.p95_us > a.p95_us ? b : a), null);
  return (
    <dl class="summary" aria-label="Summary">
      <div><dt>Requests</dt><dd>{rate(services.reduce((sum, s) => sum + s.rate, 0))}<small>/s</small></dd></div>
      <div><dt>Failed</dt><dd class={`errors ${errorLevel(ratio)}`}>{percent(ratio)}</dd></div>
      <div><dt>Slowest p95</dt><dd>{slowest ? duration(slowest.p95_us) : "–"}{slowest && <small> {slowest.l7_protocol}</small>}</dd></div>
      <div><dt>Services</dt><dd>{services.length}</dd></div>
    </dl>
  );
}

function Waiting({ failed }: { failed: boolean }) {
  return <p class="note" role="status">{failed ? "Nothing to show yet." : "Asking the server…"}</p>;
}

function Empty({ answer, range, onRange }: { answer: Services; range: TimeRange; onRange: (range: TimeRange) => void }) {
  const newest = answer.newest_s;
  const length = "last_s" in range ? range.last_s : range.to_s - range.from_s;
  return (
    <div class="empty">
      <p><b>No requests in this time range.</b></p>
      {newest
        ? <p>The newest request was at {utc(newest)}.{" "}
            <button type="button" onClick={() => onRange({ from_s: Math.max(0, newest + 1 - length), to_s: newest + 1 })}>Show that time</button></p>
        : <p>Requests appear here as soon as the watched interfaces carry some: make one, for example with <code>curl http://…</code>, or
            load a capture with <code>wirespan replay</code>.</p>}
    </div>
  );
}
