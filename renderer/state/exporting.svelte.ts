import type { Client } from '#ui/bridge/client.ts'
import type { ExportFormat } from '#core/contract/inspectorProtocol.ts'
import { formatBytes, formatCount, plural } from '#ui/lib/format.ts'
import type { Notices } from './notices.svelte.ts'

export const formatTitles: Record<ExportFormat, { readonly title: string; readonly what: string }> = {
  har: { title: 'HAR', what: 'HTTP requests and responses with bodies, for browsers and HTTP tools. Other flows are left out and counted.' },
  pcapng: { title: 'pcapng', what: 'Every byte as packets, with programs named, for Wireshark and tshark.' },
  ndjson: { title: 'NDJSON', what: 'One flow a line as JSON, for scripts.' },
}

/** The export under way, if any. */
export class Exporting {
  format = $state<ExportFormat>('har')
  /** Only what matches the filter. */
  onlyMatching = $state(false)
  running = $state(false)
  done = $state(0)
  of = $state(0)
  readonly #client: Client
  readonly #notices: Notices

  constructor(client: Client, notices: Notices) {
    this.#client = client
    this.#notices = notices
  }

  /** True when a file was written. */
  async start(filter: string): Promise<boolean> {
    if (this.running) return false
    this.running = true
    this.done = 0
    this.of = 0
    try {
      const result = await this.#client.call('exportSession', { format: this.format, filter: this.onlyMatching ? filter : '' })
      if (result === null) return false
      const name = result.path.slice(result.path.lastIndexOf('/') + 1)
      const what = this.format === 'har' ? plural(result.entries, 'entry', 'entries') : `${formatCount(result.flows)} flows`
      this.#notices.add({
        kind: 'done',
        text: `Exported ${what} (${formatBytes(result.bytes)}) to ${name}`,
        details: result.notes,
        action: { label: 'Show in folder', run: () => void this.#notices.attempt(() => this.#client.call('showFolder', null)) },
      })
      return true
    } catch (error) {
      this.#notices.fail(error)
      return false
    } finally {
      this.running = false
    }
  }
  async cancel(): Promise<void> {
    await this.#notices.attempt(() => this.#client.call('cancelExport', null))
  }
  progress({ done, of }: { readonly done: number; readonly of: number }): void {
    this.done = done
    this.of = of
  }
}
