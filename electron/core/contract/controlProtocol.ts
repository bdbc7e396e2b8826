import * as v from 'valibot'

import { failureShape } from './failure.ts'
import { planEditShape } from '../plan/editPlan.ts'
import { planShape } from '../plan/plan.ts'
import { portRange } from '../plan/portRange.ts'

/**
 * `sluice change` <-> whoever has a gate open (the command or the window): one JSON object a line over a unix socket that only its owner and root can
 * reach; one request a connection at a time, each answered in order.
 */
export const controlLineLimit = 2 << 20

/** A container by the name a person chose it by, and the cgroups it was found to have: what is made anew under the name is meant, too. */
const container = v.strictObject({ name: v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)), cgroups: v.pipe(v.array(v.pipe(v.string(), v.maxLength(1024))), v.maxLength(16)) })
const duration = v.pipe(v.number(), v.minValue(1), v.maxValue(3650 * 86_400_000))

export const controlRequestShape = v.variant('type', [
  /** Answer: ControlStatus, which every other request is answered with as well. */
  v.strictObject({ type: v.literal('status') }),
  /** `duration` in milliseconds: the ports that are added go again; null: they stay. */
  v.strictObject({ type: v.literal('edit'), edit: planEditShape, duration: v.nullable(duration), containers: v.optional(v.pipe(v.array(container), v.maxLength(256)), []) }),
  /** The whole gate drains after so many milliseconds; null: no longer. */
  v.strictObject({ type: v.literal('close-after'), duration: v.nullable(duration) }),
  /** Answered when no new flow is taken. */
  v.strictObject({ type: v.literal('drain') }),
  v.strictObject({ type: v.literal('resume') }),
  /** At once. Answered when everything is taken back. */
  v.strictObject({ type: v.literal('close') }),
])
export type ControlRequest = v.InferOutput<typeof controlRequestShape>
/** Of an edit. */
export type FoundContainers = Extract<ControlRequest, { type: 'edit' }>['containers']

const time = v.number()
const portsDiffer = v.object({ added: v.array(portRange), removed: v.array(portRange) })
const namesDiffer = v.object({ added: v.array(v.string()), removed: v.array(v.string()), every: v.boolean() })
const networksDiffer = v.object({ added: v.array(v.string()), removed: v.array(v.string()) })

export const controlStatusShape = v.object({
  pid: v.number(),
  version: v.string(),
  /** Session folder, absolute. */
  session: v.string(),
  phase: v.picklist(['closed', 'opening', 'open', 'draining', 'closing']),
  plan: v.optional(planShape),
  backend: v.optional(v.picklist(['nft', 'iptables', 'iptables-legacy'])),
  openedAt: v.optional(time),
  ends: v.optional(v.object({ gate: v.optional(time), ports: v.array(v.object({ transport: v.picklist(['tcp', 'udp']), ports: v.array(portRange), until: time })) })),
  active: v.number(),
  total: v.number(),
  bytes: v.number(),
  recording: v.picklist(['on', 'slow', 'stopped', 'off']),
  /** What an edit changed. */
  difference: v.optional(v.object({
    ports: v.object({ tcp: portsDiffer, udp: portsDiffer }),
    networks: v.object({ exclude: networksDiffer, excludeSources: networksDiffer, servers: networksDiffer, sources: networksDiffer }),
    names: v.object({ interfaces: namesDiffer, users: namesDiffer, groups: namesDiffer, cgroups: namesDiffer }),
    others: v.array(v.keyof(planShape)),
  })),
})
export type ControlStatus = v.InferOutput<typeof controlStatusShape>

export const controlReplyShape = v.variant('ok', [v.object({ ok: v.literal(true), status: controlStatusShape }), v.object({ ok: v.literal(false), error: failureShape })])
export type ControlReply = v.InferOutput<typeof controlReplyShape>
