import * as v from 'valibot'

import { exportFormats, sortKeys } from './inspectorProtocol.ts'
import type { BridgeCalls, GateChoice, Settings } from './bridge.ts'

/**
 * One validator for the argument of every call of the bridge. The page is confined, but it shows strangers' bytes: whatever comes from it is
 * checked as if it had been told by them. Unknown keys are refused, lengths are bounded.
 */
const line = (most: number) => v.pipe(v.string(), v.maxLength(most), v.check((text) => !/[\n\r\0]/.test(text), 'one line'))
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const flow = v.pipe(v.number(), v.safeInteger(), v.minValue(1))
/** At most a year: longer is no limit. */
const seconds = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(31_536_000))
const filter = v.pipe(v.string(), v.maxLength(10_000))
const limit = (most: number) => v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(most))

export const gateChoiceShape = v.strictObject({
  ports: line(4096),
  refuse: line(4096),
  udpIdle: v.strictObject({ dns: line(8), quic: line(8), other: line(8) }),
  send: v.pipe(v.array(v.strictObject({ ports: line(4096), kind: v.picklist(['proxy2', 'socks5', 'tproxy']), to: line(256) })), v.maxLength(64)),
  scope: v.strictObject({ local: v.boolean(), forwarded: v.boolean(), incoming: v.optional(v.boolean(), false) }),
  interfaces: line(2048),
  users: line(4096),
  groups: line(4096),
  programs: line(16_384),
  sources: line(16_384),
  excludeSources: line(16_384),
  servers: line(16_384),
  exclude: line(16_384),
  netns: line(255),
  backend: v.picklist(['auto', 'nft', 'iptables', 'iptables-legacy']),
  hold: v.boolean(),
  keepPort: v.boolean(),
  marks: line(80),
  table: line(16),
  priority: line(40),
  payload: v.boolean(),
  keep: v.strictObject({ session: line(24), flow: line(24) }),
  maxFlows: line(16),
})
const theme = v.picklist(['system', 'light', 'dark'])
const recentPorts = v.pipe(v.array(line(4096)), v.maxLength(12))
export const settingsShape = v.strictObject({ theme, choice: gateChoiceShape, recentPorts })
const sortKey = v.picklist(sortKeys)

export const bridgeArguments = {
  getInfo: v.null(),
  getGate: v.null(),
  getSession: v.null(),
  getSettings: v.null(),
  setSettings: v.strictObject({ theme: v.exactOptional(theme), choice: v.exactOptional(gateChoiceShape), recentPorts: v.exactOptional(recentPorts) }),
  preview: gateChoiceShape,
  suggestions: v.null(),
  openGate: gateChoiceShape,
  changeGate: gateChoiceShape,
  editPorts: v.strictObject({ add: line(4096), remove: line(4096), seconds: v.nullable(seconds) }),
  closeAfter: v.nullable(seconds),
  resumeGate: v.null(),
  drainGate: v.null(),
  closeGate: v.null(),
  listPorts: v.null(),
  doctor: v.null(),
  listActions: v.null(),
  flows: v.strictObject({ filter, sort: sortKey, descending: v.boolean(), offset: whole, limit: limit(5000) }),
  position: v.strictObject({ flow, filter, sort: sortKey, descending: v.boolean() }),
  flow: v.strictObject({ flow, exchangeOffset: whole, exchangeLimit: limit(1000) }),
  stream: v.strictObject({ flow, direction: v.picklist(['both', 'up', 'down']), offset: whole, limit: limit(1 << 20) }),
  body: v.strictObject({
    flow,
    exchange: whole,
    part: v.picklist(['request', 'response']),
    decoded: v.boolean(),
    offset: whole,
    limit: limit(1 << 20),
  }),
  exportSession: v.strictObject({ format: v.picklist(exportFormats), filter }),
  cancelExport: v.null(),
  openSession: v.null(),
  copyText: v.pipe(v.string(), v.maxLength(16 << 20)),
  showFolder: v.null(),
} satisfies { [Name in keyof BridgeCalls]: v.GenericSchema<unknown, BridgeCalls[Name]['argument']> }

/** Both ways: a validator lets through exactly what the contract says. A difference is a type error here. */
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false
type Mutable<T> = T extends readonly (infer Item)[] ? Mutable<Item>[] : T extends object ? { -readonly [Key in keyof T]: Mutable<T[Key]> } : T
export type ValidatorsMatch = {
  choice: Same<v.InferOutput<typeof gateChoiceShape>, Mutable<GateChoice>>
  settings: Same<v.InferOutput<typeof settingsShape>, Mutable<Settings>>
}
export const validatorsMatch: ValidatorsMatch = { choice: true, settings: true }

export const bridgeCallNames = Object.keys(bridgeArguments) as (keyof BridgeCalls)[]
