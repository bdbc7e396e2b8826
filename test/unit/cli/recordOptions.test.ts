import { describe, expect, test } from 'vitest'

import { newWarnings } from '#cli/newWarnings.ts'
import { recordOf } from '#cli/recordOptions.ts'

describe('how much is recorded', () => {
  test.each([
    [{}, { threads: 3, payload: true, maxBytes: null, maxBytesPerFlow: null }],
    [{ 'no-payload': true, 'max-bytes': '2GiB' }, { threads: 3, payload: false, maxBytes: 2 ** 31, maxBytesPerFlow: null }],
    [{ 'max-bytes': '500M', 'no-ring': true, 'segment-bytes': '64KiB', 'max-flow-bytes': '0', threads: '64', 'max-flows': '100' }, { threads: 64, maxFlows: 100, payload: true, maxBytes: 500e6, maxBytesPerFlow: 0, segmentBytes: 65_536, ring: false }],
  ])('%j', (values, wish) => expect(recordOf(values, 3)).toEqual(wish))

  test.each([
    [{ 'max-bytes': 'much' }, /--max-bytes .*"much"/],
    [{ 'max-flow-bytes': '-1' }, /--max-flow-bytes .*"-1"/],
    [{ 'max-bytes': '99999999T' }, /--max-bytes/],
    [{ 'segment-bytes': '63KiB' }, /64KiB or more/],
    [{ threads: '0' }, /1 to 64/],
    [{ 'max-flows': '0' }, /1 to 1000000/],
    [{ 'max-flows': '1000001' }, /1 to 1000000/],
    [{ threads: 'all' }, /1 to 64/],
    [{ 'no-ring': true }, /--max-bytes, and that is missing/],
  ])('%j is refused', (values, says) => expect(() => recordOf(values, 3)).toThrow(says))
})

test('each warning is said once, and again when it comes anew', () => {
  const said: string[] = []
  const hear = newWarnings((warning) => said.push(warning))
  for (const warnings of [[], ['a'], ['a'], ['a', 'b'], [], ['a']]) hear({ warnings })
  expect(said).toEqual(['a', 'b', 'a'])
})
