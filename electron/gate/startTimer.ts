/** A timer's longest: 2^31 - 1 milliseconds, almost 25 days. Beyond it `setTimeout` fires at once. */
const longest = 2 ** 31 - 1

/** As setTimeout, for any length. The result ends it. */
export function startTimer(milliseconds: number, done: () => void): () => void {
  // Monotonic: a clock that is set must not end a recording.
  const end = performance.now() + milliseconds
  let timer: NodeJS.Timeout
  const arm = (): void => {
    const left = end - performance.now()
    timer = setTimeout(left > longest ? arm : done, Math.max(0, Math.min(left, longest)))
  }
  arm()
  return () => clearTimeout(timer)
}
