/** Looks until it is so; vitest's own `expect.poll` is not for tests that run beside one another. @throws Error with what was seen last */
export async function until<T>(what: string, read: () => Promise<T>, isSo: (seen: T) => boolean, timeout = 20_000): Promise<T> {
  const end = performance.now() + timeout
  for (;;) {
    const seen = await read()
    if (isSo(seen)) return seen
    if (performance.now() > end) throw new Error(`not within ${String(timeout)} ms: ${what}; seen last: ${typeof seen === 'string' ? seen : JSON.stringify(seen)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
