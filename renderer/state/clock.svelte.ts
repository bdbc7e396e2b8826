import { createSubscriber } from 'svelte/reactivity'

/** The time of day for whoever shows how long something goes on: a new one each second, while somebody looks. */
class Clock {
  readonly #watch = createSubscriber((update) => {
    const timer = setInterval(update, 1000)
    return () => clearInterval(timer)
  })

  /** Milliseconds since the epoch. */
  get now(): number {
    this.#watch()
    return Date.now()
  }
}

export const clock = new Clock()
