// Draws losses over steps as an SVG picture: axes with numbers, a grid, a line a series, a legend. Text in, text out;
// it knows nothing of runs. Series with many points are averaged over stretches, or the noise would hide the curve.

/** A loss, in nats a token, at a step. */
export interface CurvePoint {
  readonly step: number;
  readonly loss: number;
}

/** A line of the picture. */
export interface CurveSeries {
  readonly label: string;
  /** By step, ascending. */
  readonly points: readonly CurvePoint[];
}

const WIDTH = 800;
const HEIGHT = 480;
/** The plot inside the picture. */
const PLOT = { left: 72, right: WIDTH - 24, top: 48, bottom: HEIGHT - 60 };
/** Told apart by people who see colours otherwise, too (Okabe and Ito). */
const COLOURS = ['#56b4e9', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#0072b2'];
const POINTS_MAX = 250;
/** Series of at most so many points show each of them. */
const DOTS_MAX = 60;
const N_TICK = 6;

/**
 * Draws losses over steps.
 * @returns an SVG document; empty axes where there is no point
 */
export function drawLossCurve(title: string, series: readonly CurveSeries[]): string {
  const thinned = series.map(({ label, points }) => ({ label, points: thin(points) }));
  const all = thinned.flatMap(({ points }) => points);
  const x = makeAxis(
    all.map(({ step }) => step),
    PLOT.left,
    PLOT.right,
  );
  const y = makeAxis(
    all.map(({ loss }) => loss),
    PLOT.bottom,
    PLOT.top,
  );
  const body = [
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    write(WIDTH / 2, 28, title, 'text-anchor="middle" font-size="16"'),
    ...x.ticks.flatMap((tick) => [
      line(x.place(tick), PLOT.top, x.place(tick), PLOT.bottom, '#e5e5e5'),
      write(x.place(tick), PLOT.bottom + 20, x.format(tick), 'text-anchor="middle"'),
    ]),
    ...y.ticks.flatMap((tick) => [
      line(PLOT.left, y.place(tick), PLOT.right, y.place(tick), '#e5e5e5'),
      write(PLOT.left - 8, y.place(tick) + 4, y.format(tick), 'text-anchor="end"'),
    ]),
    line(PLOT.left, PLOT.bottom, PLOT.right, PLOT.bottom, '#333'),
    line(PLOT.left, PLOT.top, PLOT.left, PLOT.bottom, '#333'),
    write((PLOT.left + PLOT.right) / 2, HEIGHT - 16, 'step', 'text-anchor="middle"'),
    write(0, 0, 'loss (nats a token)', `text-anchor="middle" transform="translate(20 ${HEIGHT / 2}) rotate(-90)"`),
    ...thinned.flatMap(({ points }, i) => drawSeries(points, x, y, colourOf(i))),
    ...drawLegend(thinned.map((each) => each.label)),
  ];
  const size = `width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}"`;
  const open = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12" fill="#333">`;
  return `${open}\n${body.join('\n')}\n</svg>\n`;
}

const colourOf = (i: number): string => COLOURS[i % COLOURS.length]!;

/** At most POINTS_MAX points, each the mean of a stretch. */
function thin(points: readonly CurvePoint[]): readonly CurvePoint[] {
  const finite = points.filter(({ loss }) => Number.isFinite(loss));
  if (finite.length <= POINTS_MAX) return finite;
  return Array.from({ length: POINTS_MAX }, (_, i) => {
    const at = (k: number): number => Math.floor((k * finite.length) / POINTS_MAX);
    const part = finite.slice(at(i), at(i + 1));
    const mean = (key: keyof CurvePoint): number => part.reduce((sum, p) => sum + p[key], 0) / part.length;
    return { step: mean('step'), loss: mean('loss') };
  });
}

interface Axis {
  readonly ticks: readonly number[];
  /** Where a value is in the picture. */
  place(value: number): number;
  format(tick: number): string;
}

/** An axis from the whole tick below the least value to the one above the greatest. */
function makeAxis(values: readonly number[], from: number, to: number): Axis {
  const least = values.reduce((a, b) => Math.min(a, b), values[0] ?? 0);
  const greatest = values.reduce((a, b) => Math.max(a, b), values[0] ?? 1);
  const step = tickStep((greatest - least || Math.abs(greatest) || 1) / N_TICK);
  const first = Math.floor(least / step);
  const last = Math.max(first + 1, Math.ceil(greatest / step));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  const decimals = String(step).includes('e') ? 8 : (String(step).split('.')[1]?.length ?? 0);
  return {
    ticks,
    place: (value) => from + ((value / step - first) / (last - first)) * (to - from),
    format: (tick) => tick.toFixed(decimals),
  };
}

/** The least of 1, 2, 5, 10, 20 … (or 0.5, 0.2, 0.1 …) that is at least `min`. */
function tickStep(min: number): number {
  const exponent = Math.floor(Number(min.toExponential().split('e')[1]));
  const step = [1, 2, 5, 10].map((n) => Number(`${n}e${exponent}`)).find((n) => n >= min * (1 - 1e-9));
  return step ?? min;
}

function drawSeries(points: readonly CurvePoint[], x: Axis, y: Axis, colour: string): string[] {
  const places = points.map((p) => [x.place(p.step).toFixed(1), y.place(p.loss).toFixed(1)] as const);
  const path = places.map((place) => place.join(',')).join(' ');
  const dots = places.length > DOTS_MAX ? [] : places;
  return [
    `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round"/>`,
    ...dots.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
  ];
}

function drawLegend(labels: readonly string[]): string[] {
  const width = 44 + 7 * Math.max(0, ...labels.map(({ length }) => length));
  const left = PLOT.right - width - 8;
  const top = PLOT.top + 8;
  return [
    `<rect x="${left}" y="${top}" width="${width}" height="${20 * labels.length + 8}" fill="#fff" stroke="#ccc"/>`,
    ...labels.flatMap((name, i) => {
      const middle = top + 14 + 20 * i;
      return [
        `<path d="M${left + 8} ${middle}h22" stroke="${colourOf(i)}" stroke-width="3"/>`,
        write(left + 36, middle + 4, name),
      ];
    }),
  ];
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map((n) => n.toFixed(1));
  return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" stroke="${colour}"/>`;
}

function write(x: number, y: number, text: string, attributes = ''): string {
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped}</text>`;
}
