/** A monitor that lived so long was well: when it ends the next one begins at once. */
const wellAfter = 60_000
const restartWaits = { first: 100, most: 10_000 } as const

/**
 * Milliseconds until a monitor that ended after `lived` is started again; `before`: the wait before it had been started. For ever, but ever more seldom where it cannot live: a gate is
 * open for weeks, and a tool that fails at once fails a hundred times a second.
 */
export function restartWait(lived: number, before: number): number {
  return lived >= wellAfter ? 0 : Math.min(restartWaits.most, Math.max(restartWaits.first, before * 2))
}
