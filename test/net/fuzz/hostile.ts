// What somebody else's program might say instead of what is meant: requests with one place of theirs spoilt. The places are found in the request itself, and the tests check that
// their samples have every field of the shapes, so that a new field is spoilt as well without being named here.
import fc from 'fast-check'

export const shellWords = [';', '&&', '|', '`id`', '$(id)', '\n', '"', "'", '}', '{', ' } ; flush ruleset; #', '\n*filter\n:INPUT DROP\n', '-j DROP', '--flush', '../../etc/passwd', '\0', '\u2028', '{"', 'eth0; reboot', 'inet', '0.0.0.0/0 accept'] as const

type Path = readonly (string | number)[]
type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** Never what is meant, in whatever place: no path, no name, no number within any bounds, no list of either. */
const hostile: fc.Arbitrary<Json> = fc.oneof(
  { weight: 4, arbitrary: fc.oneof(fc.constantFrom(...shellWords), fc.tuple(fc.string({ maxLength: 6 }), fc.constantFrom(...shellWords)).map(([a, b]) => `x${a}${b}`)) },
  { weight: 1, arbitrary: fc.constantFrom<Json>(-1, 1e300, -0.5, '0x50', ['; x'], { '; x': 1 }, 'x'.repeat(5000)) },
)
/** In the place of a number or a choice also what only seems to be one. */
const oddScalar: fc.Arbitrary<Json> = fc.oneof({ weight: 3, arbitrary: hostile }, { weight: 1, arbitrary: fc.constantFrom<Json>('1', 'true', '', []) })

/** Every place in a request but for its id and type. @throws Error where a list or an object is empty: nothing could be spoilt within */
export function placesIn(value: Json, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return path.length === 0 ? [] : [path]
  const within = Object.entries(value).filter(([key]) => path.length > 0 || (key !== 'id' && key !== 'type'))
  if (within.length === 0 && path.length > 0) throw new Error(`${path.join('.')} is empty in the sample`)
  return [...(path.length === 0 ? [] : [path]), ...within.flatMap(([key, inner]) => placesIn(inner, [...path, Array.isArray(value) ? Number(key) : key]))]
}

/** The request with each of its places spoilt in turn, `times` over; and with a field too many. */
export function spoil(request: Json, times: number, seed: number): Json[] {
  const spoilt = placesIn(request).flatMap((path, index) =>
    fc.sample(['number', 'boolean'].includes(typeof at(request, path)) ? oddScalar : hostile, { numRuns: times, seed: seed + index }).map((value) => replaced(request, path, value)))
  return [...spoilt, { ...(request as object), exec: 'id' }]
}

function at(value: Json, path: Path): Json {
  return path.reduce<Json>((inner, key) => (inner as Record<string | number, Json>)[key] as Json, value)
}

function replaced(value: Json, [key, ...rest]: Path, by: Json): Json {
  if (key === undefined) return by
  if (Array.isArray(value)) return value.map((inner: Json, index) => (index === key ? replaced(inner, rest, by) : inner))
  return { ...(value as Record<string, Json>), [key]: replaced((value as Record<string, Json>)[key] as Json, rest, by) }
}

export const asJson = (value: unknown): Json => JSON.parse(JSON.stringify(value)) as Json

/** Bytes, text and JSON that are no request. */
export const rubbish: fc.Arbitrary<string | Uint8Array> = fc.oneof(
  fc.uint8Array({ maxLength: 400 }),
  fc.string({ unit: 'binary', maxLength: 300 }).map((text) => `${text}\n`),
  fc.json({ maxDepth: 3 }).map((text) => `${text}\n`),
  fc.object({ maxDepth: 2 }).map((value) => `${JSON.stringify({ id: 3, type: 'open', ...value })}\n`),
  fc.record({ id: fc.oneof(fc.integer(), fc.double(), fc.string(), fc.constant(null)), type: fc.constantFrom('hello', 'open', 'edit', 'cleanup', 'change', 'exec', '__proto__') }).map((value) => `${JSON.stringify(value)}\n`),
)
