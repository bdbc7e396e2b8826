import type { Client } from '#ui/bridge/client.ts'
import type { Action } from '#core/contract/actionLog.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'

/** What was done to this machine as root, newest first. */
export class ActionsStore {
  /** Null: not asked yet. */
  actions = $state.raw<readonly Action[] | null>(null)
  failure = $state.raw<FailureReport | null>(null)
  readonly #client: Client

  constructor(client: Client) {
    this.#client = client
  }

  async refresh(): Promise<void> {
    try {
      this.actions = (await this.#client.call('listActions', null)).toReversed()
      this.failure = null
    } catch (error) {
      this.failure = toFailureReport(error)
    }
  }
}
