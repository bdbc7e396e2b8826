/** Somebody who holds captured bytes in memory and can let go of them. */
export interface Holder {
  derail(reason: string): void
}

/** What all flows together may hold of unfinished heads and unanswered exchanges: above it the largest holder is derailed. */
export class HeadBudget {
  private readonly holders = new Map<Holder, number>()
  private total = 0
  readonly limit: number

  constructor(limit = 64 * 1024 * 1024) {
    this.limit = limit
  }

  get held(): number {
    return this.total
  }

  /** Says anew how much a holder holds; 0 forgets it. */
  set(holder: Holder, bytes: number): void {
    this.total += bytes - (this.holders.get(holder) ?? 0)
    if (bytes === 0) this.holders.delete(holder)
    else this.holders.set(holder, bytes)
    while (this.total > this.limit && this.holders.size > 0) {
      let largest: Holder | undefined
      let most = 0
      for (const [candidate, held] of this.holders) if (held > most) [largest, most] = [candidate, held]
      if (largest === undefined) return
      this.holders.delete(largest)
      this.total -= most
      largest.derail('its unfinished messages grew larger than what may be kept in memory')
    }
  }
}
