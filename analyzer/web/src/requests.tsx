// The latest requests: filters, the list, and all fields of one.

import { useEffect, useRef, useState } from "preact/hooks";
import { getTraceOf, type Span, type SpanFilter, type Trace } from "./api";
import { duration, fieldValue, label, requestText, timeOfDay, utc } from "./format";
import { TraceView } from "./trace";

export const STATUS_TEXT: Record<string, string> = {
  ok: "OK", client_error: "Client error", server_error: "Server error", timeout: "Timeout", unknown: "Unknown",
};

interface FilterProps {
  filter: SpanFilter;
  protocols: readonly string[];
  onChange: (filter: SpanFilter) => void;
}

export function RequestFilters({ filter, protocols, onChange }: FilterProps) {
  const set = (key: keyof SpanFilter) => (event: Event) =>
    onChange({ ...filter, [key]: (event.currentTarget as HTMLInputElement | HTMLSelectElement).value });
  return (
    <form class="filters" role="search" aria-label="Filter requests" onSubmit={(event) => event.preventDefault()}>
      <label>
        <span>Text</span>
        <input type="search" name="text" placeholder="path, statement, domain…" value={filter.text} onInput={set("text")} />
      </label>
      <label>
        <span>Service</span>
        <input type="search" name="service" placeholder="address or name" value={filter.service} onInput={set("service")} />
      </label>
      <label>
        <span>Protocol</span>
        <select name="l7_protocol" value={filter.l7_protocol} onChange={set("l7_protocol")}>
          <option value="">all</option>
          {protocols.map((p) => <option key={p} value={p}>{p}</option>)}
        </select>
      </label>
      <label>
        <span>Status</span>
        <select name="status" value={filter.status} onChange={set("status")}>
          <option value="">all</option>
          <option value="error">failed</option>
          {Object.entries(STATUS_TEXT).map(([value, text]) => <option key={value} value={value}>{text}</option>)}
        </select>
      </label>
      <label>
        <span>Slower than</span>
        <input type="number" name="min_duration_ms" min="0" step="any" placeholder="ms" value={filter.min_duration_ms} onInput={set("min_duration_ms")} />
      </label>
    </form>
  );
}

export function RequestsTable({ spans, onOpen }: { spans: readonly Span[]; onOpen: (span: Span) => void }) {
  return (
    <table class="requests">
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Status</th>
          <th scope="col">Protocol</th>
          <th scope="col">Request</th>
          <th scope="col" class="number">Duration</th>
          <th scope="col">From</th>
          <th scope="col">To</th>
        </tr>
      </thead>
      <tbody>
        {spans.map((span) => (
          <tr key={span.id} data-status={span.response_status} onClick={() => onOpen(span)}>
            <td class="time" title={utc(span.start_ns / 1e9)}>
              <button type="button" aria-label={`All fields of the request at ${timeOfDay(span.start_ns)}`}
                onClick={(event) => { event.stopPropagation(); onOpen(span); }}>
                {timeOfDay(span.start_ns)}
              </button>
            </td>
            <td class="status-cell"><Status span={span} /></td>
            <td class="protocol"><span class="tag">{span.l7_protocol}</span></td>
            <td class="request" title={requestText(span).join(" ")}><Request span={span} /></td>
            <td class="number">{span.session === "complete" ? duration(span.duration_us) : "–"}</td>
            <td class="peer">{span.client_name ?? span.client_ip}</td>
            <td class="peer">{label(span.server_name, span.server_ip, span.server_port)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Request({ span }: { span: Span }) {
  const [verb, what] = requestText(span);
  return <><b>{verb}</b> {what}</>;
}

function Status({ span }: { span: Span }) {
  const code = span.response_code;
  return (
    <span class={`status ${span.response_status}`} title={STATUS_TEXT[span.response_status]}>
      {code !== null && span.l7_protocol === "HTTP" ? code : STATUS_TEXT[span.response_status]}
    </span>
  );
}

/** Fields that say something, in the order of the record. */
export function shownFields(span: Span): [string, string][] {
  return Object.entries(span)
    .filter(([, v]) => v !== null && v !== "" && !(typeof v === "object" && Object.keys(v as object).length === 0))
    .map(([name, value]) => [name, fieldValue(name, value)]);
}

/** The trace of a request; null until it is there, and for a request that is alone in it. */
function useTrace(span: Span | null): { trace: Trace | null; error: string | null } {
  const [state, setState] = useState<{ trace: Trace | null; error: string | null }>({ trace: null, error: null });
  const shown = state.trace?.spans.some((other) => other.id === span?.id) ?? false;
  useEffect(() => {
    if (!span || shown) return;
    const aborter = new AbortController();
    setState({ trace: null, error: null });
    getTraceOf(span.id, aborter.signal).then(
      (trace) => setState({ trace, error: null }),
      (error: Error) => aborter.signal.aborted || setState({ trace: null, error: error.message }),
    );
    return () => aborter.abort();
  }, [span?.id, shown]);
  return { trace: state.trace && state.trace.spans.length > 1 ? state.trace : null, error: state.error };
}

interface DetailProps {
  span: Span | null;
  onSelect: (span: Span) => void;
  onClose: () => void;
}

export function RequestDetail({ span, onSelect, onClose }: DetailProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { trace, error } = useTrace(span);
  useEffect(() => {
    if (span && !dialog.current?.open) dialog.current?.showModal();
    if (!span) dialog.current?.close();
  }, [span]);
  return (
    <dialog ref={dialog} class={trace ? "detail wide" : "detail"} aria-label="All fields of the request" onClose={onClose}
      onClick={(event) => { if (event.target === dialog.current) dialog.current?.close(); }}>
      {span && (
        <div class="detail-body">
          <header>
            <h2><Status span={span} /> <Request span={span} /></h2>
            <button type="button" class="plain" aria-label="Close" onClick={() => dialog.current?.close()}>✕</button>
          </header>
          {trace && <TraceView trace={trace} selected={span.id} onSelect={onSelect} />}
          {error && <p class="note bad" role="status">Its trace cannot be shown: {error}.</p>}
          <dl>
            {shownFields(span).map(([name, value]) => (
              <div key={name}><dt>{name}</dt><dd>{value}</dd></div>
            ))}
          </dl>
        </div>
      )}
    </dialog>
  );
}
