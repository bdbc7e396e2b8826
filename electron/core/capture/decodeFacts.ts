import * as v from 'valibot'

import type { Fact } from './facts.ts'
import { factShape } from './facts.ts'
import { blockTypes, factMagic, factPen } from './pcapngFormat.ts'
import type { CaptureBlock } from './readBlocks.ts'
import { decodeUtf8 } from './utf8.ts'

/** JSON of a fact longer than this is not read: the longest the relay writes is a process with 4 KiB of command line. */
const factLimit = 256 * 1024

/**
 * The fact in a custom block; null for every other block, for facts of a later version and for anything malformed: a capture is read
 * as far as it makes sense. Never throws.
 */
export function decodeFact(block: CaptureBlock): Fact | null {
  const { body } = block
  if (block.type !== blockTypes.custom || body.length < 12 || body.length > factLimit) return null
  const pen = (body[0]! | (body[1]! << 8) | (body[2]! << 16) | (body[3]! << 24)) >>> 0
  if (pen !== factPen || factMagic.some((byte, index) => body[4 + index] !== byte)) return null
  let end = body.length
  while (end > 12 && body[end - 1] === 0) end--
  let data: unknown
  try {
    data = JSON.parse(decodeUtf8(body.subarray(12, end)))
  } catch {
    return null
  }
  const parsed = v.safeParse(factShape, data)
  return parsed.success ? parsed.output : null
}
