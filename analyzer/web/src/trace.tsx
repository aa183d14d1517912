// The trace of a request: flame graph, the way of each request over the points that saw it, where the time went.

import type { Span, Trace } from "./api";
import { breakdown, flame, pointName, type Line } from "./flame";
import { duration, label, percent, requestText } from "./format";

interface TraceProps {
  trace: Trace;
  /** The request whose fields are shown. */
  selected: string;
  onSelect: (span: Span) => void;
}

export function TraceView({ trace, selected, onSelect }: TraceProps) {
  const lines = flame(trace);
  return (
    <section class="trace" aria-label="Trace">
      <h3>
        {lines.length} {lines.length === 1 ? "request" : "requests"}, seen {trace.spans.length} times, {duration(trace.duration_us)}
      </h3>
      <div class="breakdown" role="img" aria-label={breakdown(trace).map(([name, us]) => `${name} ${duration(us)}`).join(", ")}>
        {breakdown(trace).map(([name, , share]) => (
          <span key={name} data-part={name} style={{ width: `${share * 100}%` }} title={`${name}: ${percent(share)}`} />
        ))}
      </div>
      <ul class="legend">
        {breakdown(trace).map(([name, us]) => <li key={name} data-part={name}>{name} {duration(us)}</li>)}
      </ul>
      <ol class="flame">
        {lines.map((line) => (
          <li key={line.first.id} data-status={line.first.response_status} class={line.points.some((p) => p.id === selected) ? "selected" : ""}>
            <Head line={line} onSelect={onSelect} />
            <div class="lane" aria-hidden="true">
              <span style={{ left: `${line.left}%`, width: `${line.width}%` }} />
            </div>
            {line.points.length > 1 && <Way line={line} selected={selected} onSelect={onSelect} />}
          </li>
        ))}
      </ol>
      {trace.truncated && <p class="note" role="status">{trace.truncated}</p>}
    </section>
  );
}

function Head({ line, onSelect }: { line: Line; onSelect: (span: Span) => void }) {
  const { first, last } = line;
  const [verb, what] = requestText(first);
  const address = label(last.server_name, last.server_ip, last.server_port);
  const unseen = line.points.map((point) => point.attributes["tls.unseen"]).find(Boolean);
  const server = last.observation_point === "s-p" && last.process ? last.process.name : address;
  return (
    <div class="head" style={{ paddingLeft: `${Math.min(line.depth, 12) * 14}px` }}>
      <button type="button" class="plain" onClick={() => onSelect(first)} title={`${verb} ${what}`}>
        <span class="tag">{first.l7_protocol}</span> <b>{verb}</b> {what}
      </button>
      <span class="by" title={address}>{server}</span>
      {first.parent_rule && (
        <span class="by" title="How it is known what this was made for, and how sure that is">
          {first.parent_rule} {percent(first.parent_confidence ?? 0)}
        </span>
      )}
      {unseen && <span class="by">{unseen}</span>}
      <span class="time">{duration(first.duration_us)}, self {duration(last.self_us)}</span>
    </div>
  );
}

function Way({ line, selected, onSelect }: { line: Line; selected: string; onSelect: (span: Span) => void }) {
  return (
    <ol class="way" aria-label="Points that saw it, from the client to the server" style={{ paddingLeft: `${Math.min(line.depth, 12) * 14}px` }}>
      {line.points.map((point, place) => {
        const hop = line.hops[place - 1];
        return (
          <li key={point.id}>
            {hop && <span class="hop">{hop.latency_us === null ? "→" : `${duration(hop.latency_us)} →`}</span>}
            <button type="button" class="plain" aria-pressed={point.id === selected} onClick={() => onSelect(point)} title={point.observation_point}>
              {pointName(point)}
            </button>
          </li>
        );
      })}
    </ol>
  );
}
