import { expect, test } from 'vitest'

import { restartWait } from '#helper/restartWait.ts'

/** The waits before so many starts of a monitor that lives `lived` ms each time. */
function waits(lived: number, starts: number): number[] {
  const all: number[] = []
  for (let wait = 0; all.length < starts; all.push(wait)) wait = restartWait(lived, wait)
  return all
}

test('one that fails at once is started ever more seldom, and never given up', () => {
  expect(waits(1, 10)).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000])
})

test('one that was well is there again at once, however often in the gate’s life', () => {
  expect(waits(86_400_000, 20)).toEqual(Array<number>(20).fill(0))
  expect(restartWait(60_000, 10_000)).toBe(0)
})
