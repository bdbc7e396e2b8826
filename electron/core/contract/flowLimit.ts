/** Flows at once where nothing else was asked for; who comes beyond is reset, which is recorded as `shed` and warned of. Two descriptors each. */
export const usualFlows = 8192
/** What the relay takes for a number of them; its descriptors and memory may allow less. */
export const mostFlows = 1_000_000
