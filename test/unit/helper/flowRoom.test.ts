import { expect, test } from 'vitest'

import { usualFlows } from '#core/contract/flowLimit.ts'
import { flowRoom } from '#helper/flowRoom.ts'

const limits = (soft: string, hard: string, nrOpen = '1048576\n') => () => ({ limits: `Limit                     Soft Limit           Hard Limit           Units     \nMax processes             100                  100                  processes \nMax open files            ${soft}                 ${hard}                 files     \n`, nrOpen })

test('as many flows as the relay may open files for, and an error that says how many that is', () => {
  expect(flowRoom(1, 1, limits('1024', '4096'))).toBe(1)
  expect(flowRoom(1960, 1, limits('1024', '4096'))).toBe(1960)
  expect(() => flowRoom(1961, 1, limits('1024', '4096'))).toThrow(expect.objectContaining({ code: 'usage', message: expect.stringMatching(/4096 files open here, and so at most 1960 flows at once, not 1961/) as string }))
  expect(() => flowRoom(1960, 4, limits('1024', '4096'))).toThrow(/at most 1936/)
  expect(() => flowRoom(1, 4, limits('64', '64'))).toThrow(/at most 0/)
  // The kernel keeps no such hard limit, and the soft one stays.
  expect(() => flowRoom(1000, 1, limits('1024', '2000000'))).toThrow(/1024 files open/)
  expect(() => flowRoom(1000, 1, limits('1024', 'unlimited'))).toThrow(/1024 files open/)
  // Nothing asked for.
  expect(flowRoom(undefined, 1, limits('64', '64'))).toBe(usualFlows)
})
