import * as v from 'valibot'

import { closeReasons } from '../flow/flow.ts'
import { scopes } from '../plan/plan.ts'

/** The facts of a capture, as its custom blocks say them (ARCHITECTURE.md, "The capture"). Unknown members are left out, unknown facts skipped. */
const id = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER))
const count = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER))
// One check and not two: every step of a pipe is run, and BigInt throws on what is no number.
const time = v.pipe(v.string(), v.check((text) => /^[0-9]{1,19}$/.test(text) && BigInt(text) < 1n << 63n))
const endpoint = v.object({
  address: v.pipe(v.string(), v.maxLength(64)),
  port: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535)),
})
const number32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff))

/** Said once more in a later segment. An open then says with `bytesUp` and `bytesDown` how much of the flow lies before. */
const again = { again: v.optional(v.boolean()) }
/** One TCP connection as the kernel measured it: microseconds, segments, bytes. Nonsense there does not unsay the close. */
const leg = v.fallback(v.optional(v.object({ rtt: number32, minRtt: v.optional(number32), retransmits: number32, mss: number32 })), undefined)

export const gapReasons = ['no-payload', 'flow-cap', 'slow', 'session-cap'] as const

export const factShape = v.variant('t', [
  v.object({ t: v.literal('session'), version: v.literal(1), relay: v.pipe(v.string(), v.maxLength(100)), payload: v.boolean(), segment: v.optional(id) }),
  /** Segments `first` to `last`, of so many bytes together, were deleted to keep the budget. */
  v.object({ t: v.literal('dropped'), first: id, last: id, bytes: count, time }),
  v.object({ t: v.literal('open'), id, proto: v.picklist(['tcp', 'udp']), scope: v.picklist(scopes), client: endpoint, server: endpoint, time, ...again, bytesUp: v.optional(count), bytesDown: v.optional(count) }),
  v.object({
    t: v.literal('process'), id, pid: number32, ppid: number32, name: v.string(), path: v.string(), cmdline: v.array(v.string()),
    uid: number32, user: v.string(), time, ...again,
  }),
  v.object({ t: v.literal('connected'), id, upstream: endpoint, time, ...again }),
  /** It goes to a proxy instead of to its server. */
  v.object({ t: v.literal('handed'), id, via: v.union([v.object({ kind: v.string(), address: v.pipe(v.string(), v.maxLength(64)), port: number32 }), v.object({ kind: v.string(), path: v.pipe(v.string(), v.maxLength(200)) })]), time, ...again }),
  v.object({ t: v.literal('gap'), id, direction: v.picklist(['up', 'down']), bytes: count, datagrams: v.optional(count), reason: v.picklist(gapReasons), time }),
  v.object({
    t: v.literal('close'), id, time, reason: v.picklist(closeReasons), closedBy: v.picklist(['client', 'server', 'gate', 'none']),
    bytesUp: count, bytesDown: count, clientLeg: leg, serverLeg: leg,
    // Of UDP alone: how many there were, and how many of what came was not sent on.
    datagramsUp: v.optional(count), datagramsDown: v.optional(count), lostUp: v.optional(count), lostDown: v.optional(count),
  }),
])
export type Fact = v.InferOutput<typeof factShape>
export type FactOf<T extends Fact['t']> = Extract<Fact, { t: T }>
export type GapReason = (typeof gapReasons)[number]
