import type { SessionState } from '#core/contract/bridge.ts'
import { Failure } from '#core/contract/failure.ts'
import type { ExportFormat, ExportResult } from '#core/contract/inspectorProtocol.ts'
import { exportSession } from '#session/inspectorClient.ts'

/** "NAME.sluice" and a format as a name to offer. */
export function exportName(session: string, format: ExportFormat): string {
  return `${session.replace(/\.sluice$/, '')}.${format}`
}

export interface ExporterOptions {
  readonly onProgress: (done: number, of: number) => void
}

/** One export at a time, by an inspector of its own: the window's goes on answering. */
export class Exporter {
  readonly #options: ExporterOptions
  #running: AbortController | undefined
  /** Where the last one was written. */
  lastPath: string | undefined

  constructor(options: ExporterOptions) {
    this.#options = options
  }

  async run(session: Pick<SessionState, 'folder'>, wish: { format: ExportFormat; filter: string; path: string }): Promise<ExportResult & { path: string }> {
    if (this.#running !== undefined) throw new Failure('internal', 'an export is under way; wait for it or cancel it')
    const running = new AbortController()
    this.#running = running
    try {
      // The dialog has asked about a file that is there.
      const result = await exportSession({ ...wish, folder: session.folder, overwrite: true, signal: running.signal, onProgress: this.#options.onProgress })
      this.lastPath = wish.path
      return { ...result, path: wish.path }
    } finally {
      this.#running = undefined
    }
  }

  cancel(): void {
    this.#running?.abort()
  }
}
