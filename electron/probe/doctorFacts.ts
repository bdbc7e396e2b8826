import { readFile } from 'node:fs/promises'

import { execa } from 'execa'

import type { DoctorRow } from '#core/contract/bridge.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { findPlaces } from './places.ts'
import type { Places } from './places.ts'
import { probeMachine } from './probeMachine.ts'
import { findTool, toolEnvironment } from './tools.ts'
import type { ToolName } from './tools.ts'

/** What several checks look at, read once. */
export interface Machine {
  readonly isRoot: boolean
  readonly facts: MachineFacts
  readonly places: Places
  /** `nft list ruleset` (iptables-nft's tables are in it) and what iptables-legacy holds; undefined: may not be read without root, or no tool. */
  readonly ruleset: string | undefined
  readonly legacy: { readonly ipv4: string; readonly ipv6: string } | undefined
  /** Where sessions go. */
  readonly folder: string
}
export type Check = (machine: Machine) => Promise<readonly DoctorRow[]> | readonly DoctorRow[]

/** Standard output of a tool, or undefined when it is not there or fails; `anyway`: what it printed before it failed. */
export async function ask(tool: ToolName, args: readonly string[], { input, anyway = false }: { readonly input?: string; readonly anyway?: boolean } = {}): Promise<string | undefined> {
  const path = findTool(tool)
  if (path === undefined) return undefined
  const result = await execa(path, args, { env: toolEnvironment, extendEnv: false, timeout: 10_000, reject: false, maxBuffer: 32 << 20, ...(input === undefined ? { stdin: 'ignore' as const } : { input }) })
  return result.failed && !(anyway && result.exitCode !== undefined) ? undefined : result.stdout
}

/** A small file's text without the end of line, or undefined. */
export function readText(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').then((text) => text.trimEnd(), () => undefined)
}

export async function readMachine(folder: string): Promise<Machine> {
  const isRoot = process.geteuid?.() === 0
  // Without -t the save tools show the tables there are and load no module for others.
  const [facts, ruleset, legacy4, legacy6] = await Promise.all([
    probeMachine({ privileged: isRoot }),
    isRoot ? ask('nft', ['list', 'ruleset']) : undefined,
    isRoot ? ask('iptables-legacy-save', []) : undefined,
    isRoot ? ask('ip6tables-legacy-save', []) : undefined,
  ])
  const legacy = legacy4 === undefined && legacy6 === undefined ? undefined : { ipv4: legacy4 ?? '', ipv6: legacy6 ?? '' }
  return { isRoot, facts, places: findPlaces(), ruleset, legacy, folder }
}
