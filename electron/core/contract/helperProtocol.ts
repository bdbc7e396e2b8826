import * as v from 'valibot'

import { failureShape } from './failure.ts'
import { mostFlows } from './flowLimit.ts'
import { planShape } from '../plan/plan.ts'

/**
 * App <-> helper: one JSON object a line (at most 2 MiB: the longest plan) over the helper's standard input and output. The app asks with an id and gets one reply
 * with it; the helper tells with events. End of the helper's input means: take everything back and exit.
 */
export const helperProtocolVersion = 1

/** Smaller segments would be heads and repeated facts for the most part. */
export const leastSegmentBytes = 64 * 1024

const id = v.pipe(v.number(), v.integer(), v.minValue(0))

export const helperRequestShape = v.variant('type', [
  /** First. Answer: HelloResult. */
  v.strictObject({ id, type: v.literal('hello'), protocol: v.literal(helperProtocolVersion) }),
  /**
   * Opens the gate: validates the plan, compiles, compares `digest` with its own (core/rules `rulesDigest`), starts the relay recording into
   * `folder` (an existing folder of the person's; opened only by the relay after it dropped its rights), then applies the rules. Answer: OpenResult.
   */
  v.strictObject({
    id,
    type: v.literal('open'),
    plan: planShape,
    digest: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
    capture: v.strictObject({
      folder: v.pipe(v.string(), v.maxLength(4096)),
      payload: v.boolean(),
      maxBytesPerFlow: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0))),
      /** All segments together. With `ring` the oldest segment goes then, else payload is no longer recorded. */
      maxBytes: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0))),
      ring: v.optional(v.boolean()),
      segmentBytes: v.optional(v.pipe(v.number(), v.integer(), v.minValue(leastSegmentBytes), v.maxValue(2 ** 40))),
    }),
    threads: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64)),
    /** Flows at once; who comes beyond is reset. More than the relay's descriptors allow is refused with `usage`. */
    maxFlows: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(mostFlows))),
  }),
  /**
   * Other choices while open: what differs is changed in the kernel and nothing is cut; flows already relayed stay relayed. Validated, compiled and compared
   * as for `open`. Marks, routing table, backend, relay port, priorities and keeping of ports must stay (`cannot-change`). What could not be changed whole is not changed at all. Answer: ChangeResult.
   */
  v.strictObject({ id, type: v.literal('change'), plan: planShape, digest: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)) }),
  /** Back from draining: new flows are taken again. Answer: null when they are. */
  v.strictObject({ id, type: v.literal('resume') }),
  /** Takes no new flow; the relayed ones run to their end; then everything is taken back and event `closed` comes. Answer at once. */
  v.strictObject({ id, type: v.literal('drain') }),
  /** Resets what is relayed, takes everything back, then event `closed`. Also allowed while draining or opening (the open then fails with `cancelled`). Answer when done. */
  v.strictObject({ id, type: v.literal('close') }),
  /** What decides about rules here, as root sees it (in another network namespace nobody else can look). Answer: MachineFacts. */
  v.strictObject({ id, type: v.literal('facts') }),
  /** What stands in the way here, as root sees it: the doctor's rows of a network namespace. Answer: a list of DoctorRow. */
  v.strictObject({ id, type: v.literal('doctor') }),
  /** What `open` with that plan would change in the kernel now; changes nothing. Answer: PreviewResult. */
  v.strictObject({ id, type: v.literal('preview'), plan: planShape }),
  /**
   * Before opening: a cgroup of its own for a process of the person's, and all it will start; dissolved when the helper ends. Answer: ScopeResult.
   */
  v.strictObject({ id, type: v.literal('scope'), pid: v.pipe(v.number(), v.integer(), v.minValue(2), v.maxValue(0x7fff_ffff)) }),
  /** Takes back whatever a crash left (not what a living Sluice holds). Answer: CleanupResult. */
  v.strictObject({ id, type: v.literal('cleanup') }),
])
export type HelperRequest = v.InferOutput<typeof helperRequestShape>

export interface HelloResult {
  readonly protocol: number
  /** Who the helper works for. */
  readonly uid: number
  readonly user: string
  readonly pid: number
}
export interface OpenResult {
  readonly backend: 'nft' | 'iptables' | 'iptables-legacy'
  readonly relayPort: number
  readonly relayPid: number
  readonly ipv6: boolean
  /** The kernel cannot do better than redirect (NAT); what that loses has come as warnings. */
  readonly redirects: boolean
  /** Milliseconds from the request to the last rule applied. */
  readonly took: number
}
export interface ChangeResult {
  /** Milliseconds. */
  readonly took: number
}
/** One listing of rules or routes as its tool prints it, without the ends that are equal; `line` says which line of the whole it begins with. */
export interface ChangePart {
  /** The command that prints it. */
  readonly title: string
  readonly line: number
  readonly before: string
  readonly after: string
}
export interface PreviewResult {
  readonly backend: 'nft' | 'iptables' | 'iptables-legacy'
  readonly digest: string
  readonly parts: readonly ChangePart[]
}
export interface ScopeResult {
  /** As a plan's `cgroups` name it. */
  readonly cgroup: string
}
export interface CleanupResult {
  /** One line each, what was taken back; empty: nothing was left. */
  readonly removed: readonly string[]
}

export const helperReplyShape = v.union([
  v.object({ id, ok: v.literal(true), result: v.unknown() }),
  v.object({ id, ok: v.literal(false), error: failureShape }),
])
export type HelperReply = v.InferOutput<typeof helperReplyShape>

export const helperEventShape = v.variant('event', [
  /** A step of opening or closing began, for a person: "starting the relay", "applying rules", … */
  v.object({ event: v.literal('step'), text: v.string() }),
  v.object({ event: v.literal('flows'), active: v.number(), total: v.number(), bytes: v.number() }),
  v.object({ event: v.literal('recording'), state: v.picklist(['on', 'slow', 'stopped', 'off']) }),
  v.object({ event: v.literal('warning'), code: v.string(), message: v.string() }),
  /** Something was done as root, or noted: an entry of the log of actions (contract/actionLog.ts), for the session folder. */
  v.object({ event: v.literal('action'), text: v.string() }),
  /** The gate is closed and nothing is left. `failure` when nobody asked for it (relay died or froze, rules taken away, …). */
  v.object({ event: v.literal('closed'), failure: v.optional(failureShape) }),
])
export type HelperEvent = v.InferOutput<typeof helperEventShape>

export const helperLineLimit = 2 << 20
