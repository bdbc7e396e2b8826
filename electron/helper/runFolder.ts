import { chmodSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs'

import * as v from 'valibot'

import { Failure } from '#core/contract/failure.ts'

/** Everything the helper keeps on disk, one lock and one journal a network namespace. */
export const runFolder = '/run/sluice'

const identityShape = v.strictObject({ pid: v.pipe(v.number(), v.integer(), v.minValue(2)), start: v.pipe(v.string(), v.regex(/^\d+$/)) })
const baseChains = v.strictObject({ ipv4: v.nullable(v.array(v.string())), ipv6: v.nullable(v.array(v.string())) })
const journalShape = v.strictObject({
  version: v.literal(1),
  helper: identityShape,
  /** For whom, for the log of actions. */
  person: v.strictObject({ uid: v.pipe(v.number(), v.integer()), user: v.string() }),
  backend: v.picklist(['nft', 'iptables', 'iptables-legacy']),
  table: v.pipe(v.number(), v.integer()),
  /** Base chains of iptables-nft's tables that were there before us (null: not even the table): it makes them and nobody else would remove them. */
  raw: baseChains,
  mangle: baseChains,
  nat: baseChains,
})
/** What was put on the machine and by whom; written before the first change, so that whoever finds it knows what to take back. */
export type Journal = v.InferOutput<typeof journalShape>
export const parseJournal = (value: unknown): Journal => v.parse(journalShape, value)

/** Inode of our network namespace: rules, routes and so the lock are a namespace's, not the machine's. */
export function networkNamespace(): string {
  const inode = /^net:\[(\d+)\]$/.exec(readlinkSync('/proc/self/ns/net'))?.[1]
  if (inode === undefined) throw new Failure('internal', 'the network namespace cannot be told')
  return inode
}

/** Makes the folder root's, and closed to others' writing, whatever it was. */
export function makeRunFolder(): void {
  mkdirSync(runFolder, { recursive: true, mode: 0o755 })
  const facts = lstatSync(runFolder)
  if (!facts.isDirectory() || facts.uid !== 0) throw new Failure('internal', `${runFolder} is not root's folder`)
  chmodSync(runFolder, 0o755)
}

const journalPath = (namespace: string): string => `${runFolder}/${namespace}.json`

/** Whole or not at all: a helper killed while writing leaves the old journal or the new one. */
export function writeJournal(namespace: string, journal: Journal): void {
  const next = `${journalPath(namespace)}.new`
  rmSync(next, { force: true })
  writeFileSync(next, JSON.stringify(journal), { mode: 0o600, flag: 'wx' })
  renameSync(next, journalPath(namespace))
}
/** Undefined when there is none, or it is damaged (then the sweep goes by names alone). */
export function readJournal(namespace: string): Journal | undefined {
  try {
    return parseJournal(JSON.parse(readFileSync(journalPath(namespace), 'utf8')))
  } catch {
    return undefined
  }
}
export function removeJournal(namespace: string): boolean {
  try {
    rmSync(journalPath(namespace))
    return true
  } catch {
    return false
  } finally {
    rmSync(`${journalPath(namespace)}.new`, { force: true })
  }
}
