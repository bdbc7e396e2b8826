import { lstatSync, rmSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'

import { captureFileName, sessionFileName } from '#core/contract/sessionFile.ts'
import { actionFileName } from '#core/contract/actionLog.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'

/** "2026-01-31_14.05.09_80,443.sluice" by the clock on the wall, so that a folder of sessions sorts by time and says what is in it. */
export function sessionName(plan: Pick<InterceptionPlan, 'tcp' | 'udp'>, now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const date = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`
  const time = `${two(now.getHours())}.${two(now.getMinutes())}.${two(now.getSeconds())}`
  const ports = (plan.udp.length === 0 ? formatPorts(plan.tcp) : formatPlanPorts(plan)).replace(/\s+/g, '')
  return `${date}_${time}_${ports.length > 40 ? `${ports.slice(0, 37)}...` : ports}.sluice`
}

/** The first of NAME, NAME-2, NAME-3 … that is not there yet. */
export function freeFolder(parent: string, name: string): string {
  const stem = name.replace(/\.sluice$/, '')
  for (let number = 1; ; number++) {
    const folder = join(parent, number === 1 ? `${stem}.sluice` : `${stem}-${number}.sluice`)
    try {
      lstatSync(folder)
    } catch {
      return folder
    }
  }
}

/** The header blocks of a capture nothing was recorded into stay below this. */
const emptyCapture = 4096

/** Takes away a session whose gate did not open. Only the files Sluice makes, and only while nothing was recorded. */
export function discardSession(folder: string): void {
  try {
    const capture = join(folder, captureFileName)
    let size = 0
    try {
      size = lstatSync(capture).size
    } catch {
      // never came to be
    }
    if (size > emptyCapture) return
    rmSync(capture, { force: true })
    rmSync(join(folder, sessionFileName), { force: true })
    // What was done as root stands in the helper's own log as well.
    rmSync(join(folder, actionFileName), { force: true })
    rmdirSync(folder)
  } catch {
    // Left as it is: an empty session does no harm.
  }
}
