import { dirname } from 'node:path'

import type { SessionState } from '#core/contract/bridge.ts'
import { Failure } from '#core/contract/failure.ts'
import type { ExportFormat, ExportResult } from '#core/contract/inspectorProtocol.ts'

import type { Inspector } from './sessionView.ts'

/** "NAME.sluice" and a format as a name to offer. */
export function exportName(session: string, format: ExportFormat): string {
  return `${session.replace(/\.sluice$/, '')}.${format}`
}

export interface ExporterOptions {
  /** An inspector of its own that may write beneath this folder, which the one that reads for the window may not. */
  readonly startInspector: (writable: string) => Inspector
  readonly onProgress: (done: number, of: number) => void
}

/** One export at a time, by an inspector of its own: the window's goes on answering, and stopping the export is ending a process. */
export class Exporter {
  readonly #options: ExporterOptions
  #running: Inspector | undefined
  #cancelled = false
  /** Where the last one was written. */
  lastPath: string | undefined

  constructor(options: ExporterOptions) {
    this.#options = options
  }

  async run(session: Pick<SessionState, 'folder'>, wish: { format: ExportFormat; filter: string; path: string }): Promise<ExportResult & { path: string }> {
    if (this.#running !== undefined) throw new Failure('internal', 'an export is under way; wait for it or cancel it')
    const inspector = this.#options.startInspector(dirname(wish.path))
    this.#running = inspector
    this.#cancelled = false
    try {
      inspector.onEvent((event) => {
        if (event.event === 'progress') this.#options.onProgress(event.done, event.of)
      })
      await inspector.request('open', { folder: session.folder, live: false })
      // The dialog has asked about a file that is there.
      const result = await inspector.request('export', { ...wish, overwrite: true })
      this.lastPath = wish.path
      return { ...result, path: wish.path }
    } catch (error) {
      throw this.#cancelled ? new Failure('cancelled', 'the export was cancelled') : error
    } finally {
      this.#running = undefined
      inspector.stop()
    }
  }

  cancel(): void {
    if (this.#running === undefined) return
    this.#cancelled = true
    this.#running.stop()
  }
}
