import type { Client } from '#ui/bridge/client.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import type { FlowDetails, HttpExchange } from '#core/flow/flow.ts'

export const detailTabs = ['overview', 'request', 'response', 'dns', 'stream', 'timing', 'process'] as const
export type DetailTab = (typeof detailTabs)[number]
const exchangesAPage = 100

/** Everything about the selected flow but its bytes. */
export class DetailsStore {
  flow = $state.raw<FlowDetails | null>(null)
  exchanges = $state.raw<readonly HttpExchange[]>([])
  failure = $state.raw<FailureReport | null>(null)
  tab = $state<DetailTab>('overview')
  exchangeIndex = $state(0)
  /** Rises when the flow shown has new bytes. */
  revision = $state(0)
  readonly #client: Client
  #wanted: number | null = null
  #turn = 0

  constructor(client: Client) {
    this.#client = client
  }

  readonly exchange = $derived(this.exchanges.find(({ index }) => index === this.exchangeIndex) ?? this.exchanges[0])
  readonly hasMoreExchanges = $derived(this.flow !== null && this.exchanges.length < this.flow.exchangeCount)
  readonly id = $derived(this.flow?.row.id ?? null)

  /** Shows that flow; null shows none. What was shown stays until the new one is here. */
  async show(id: number | null): Promise<void> {
    if (id === this.#wanted) return
    this.#wanted = id
    if (id === null) {
      this.#turn += 1
      this.flow = null
      this.exchanges = []
      this.failure = null
      return
    }
    await this.#load(id, true)
  }
  /** Flows changed; fetches again when the one shown is among them. */
  async changed(flows: readonly number[], more: boolean): Promise<void> {
    const id = this.#wanted
    if (id === null || !(more || flows.includes(id))) return
    await this.#load(id, false)
  }
  async loadMoreExchanges(): Promise<void> {
    const id = this.#wanted
    const turn = this.#turn
    if (id === null) return
    try {
      const next = await this.#client.call('flow', { flow: id, exchangeOffset: this.exchanges.length, exchangeLimit: exchangesAPage })
      if (turn === this.#turn) this.exchanges = [...this.exchanges, ...next.exchanges]
    } catch (error) {
      if (turn === this.#turn) this.failure = toFailureReport(error)
    }
  }

  async #load(id: number, anew: boolean): Promise<void> {
    const turn = ++this.#turn
    try {
      const flow = await this.#client.call('flow', { flow: id, exchangeOffset: 0, exchangeLimit: exchangesAPage })
      if (turn !== this.#turn) return
      if (anew) {
        this.exchangeIndex = 0
        this.exchanges = flow.exchanges
      } else {
        this.exchanges = [...flow.exchanges, ...this.exchanges.slice(flow.exchanges.length)]
      }
      this.flow = flow
      this.failure = null
      this.revision += 1
    } catch (error) {
      if (turn !== this.#turn) return
      if (anew) {
        this.flow = null
        this.exchanges = []
      }
      this.failure = toFailureReport(error)
    }
  }
}
