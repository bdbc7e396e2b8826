import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

import type { SessionSummary } from '#core/contract/inspectorProtocol.ts'
import type { ExportSteps, ExportTally } from '#core/export/exportSteps.ts'
import { Session } from '#session/session.ts'

/** A folder that is gone after the test, with state and caches in it. */
export function makeHome(): string {
  const home = mkdtempSync(join(tmpdir(), 'sluice-session-'))
  const saved = { ...process.env }
  process.env['XDG_STATE_HOME'] = join(home, 'state')
  process.env['XDG_CACHE_HOME'] = join(home, 'cache')
  onTestFinished(() => {
    process.env = saved
    rmSync(home, { recursive: true, force: true })
  })
  return home
}

/** A session folder as the gate leaves it. */
export function writeSession(home: string, capture: Uint8Array, name = 'x.sluice'): string {
  const folder = join(home, name)
  mkdirSync(folder, { mode: 0o700 })
  writeFileSync(join(folder, 'session.json'), JSON.stringify({ format: 1, tool: 'sluice', version: '0.1.0', startedAt: '2025-11-25T00:00:00Z', plan: null, payload: true }))
  writeFileSync(join(folder, 'capture-000001.pcapng'), capture)
  return folder
}

/** Opened and read to its end. */
export async function openWhole(folder: string): Promise<{ readonly session: Session; readonly summary: SessionSummary }> {
  const session = Session.open(folder, false, { changed: () => undefined })
  return { session, summary: await session.finish() }
}

/** An export taken to its end. */
export function exportWhole(steps: ExportSteps): { readonly bytes: Buffer; readonly tally: ExportTally } {
  const parts: Buffer[] = []
  for (;;) {
    const step = steps.next()
    if (step.done === true) return { bytes: Buffer.concat(parts), tally: step.value }
    parts.push(Buffer.from(step.value))
  }
}
