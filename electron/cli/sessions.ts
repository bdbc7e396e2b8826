import { resolve } from 'node:path'
import { existsSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'
import type { SessionSummary } from '#core/contract/inspectorProtocol.ts'
import { startInspector } from '#session/inspectorClient.ts'
import type { InspectorClient } from '#session/inspectorClient.ts'

/** The folder a person means: as typed, or with the ending left out. Absolute. */
export function sessionPath(name: string): string {
  const path = resolve(name)
  return !existsSync(path) && !path.endsWith('.sluice') && existsSync(`${path}.sluice`) ? `${path}.sluice` : path
}

/** Opens a session in an inspector, reads it to its end, works, and ends the inspector whatever happens. */
export async function withSession<Result>(name: string, signal: AbortSignal, work: (inspector: InspectorClient, summary: SessionSummary, folder: string) => Promise<Result>): Promise<Result> {
  const folder = sessionPath(name)
  const inspector = startInspector()
  const giveUp = (): void => void inspector.stop()
  signal.addEventListener('abort', giveUp, { once: true })
  try {
    await inspector.request('open', { folder, live: false })
    const summary = await inspector.request('finish', {})
    return await work(inspector, summary, folder)
  } finally {
    signal.removeEventListener('abort', giveUp)
    await inspector.stop()
  }
}

/** A flow's number. */
export function flowNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text) || Number(text) < 1) throw new Failure('usage', `"${text}" is no number of a flow; sluice flows lists them`)
  return Number(text)
}
