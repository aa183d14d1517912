// A small line of requests over the range, failed ones in red below it.

interface Props {
  requests: readonly number[];
  errors: readonly number[];
}

const WIDTH = 120;
const HEIGHT = 28;

export function sparkPath(values: readonly number[], largest: number): string {
  if (values.length < 2 || largest <= 0) return "";
  const step = WIDTH / (values.length - 1);
  return values
    .map((value, i) => `${i ? "L" : "M"}${(i * step).toFixed(1)} ${(HEIGHT - 2 - (value / largest) * (HEIGHT - 4)).toFixed(1)}`)
    .join("");
}

export function Sparkline({ requests, errors }: Props) {
  const largest = Math.max(...requests, 0);
  const line = sparkPath(requests, largest);
  if (!line) return null;
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <path class="spark-area" d={`${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} />
      <path class="spark-line" d={line} />
      {errors.some((n) => n > 0) && <path class="spark-errors" d={sparkPath(errors, largest)} />}
    </svg>
  );
}
