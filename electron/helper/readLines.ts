import type { Readable } from 'node:stream'

export interface LineSink {
  /** One line without its newline. */
  readonly line: (text: string) => void
  /** A line ran past the limit; nothing more is read. */
  readonly tooLong: () => void
  /** End of input, or the stream broke: the other side is gone. Told once. */
  readonly end: () => void
}

/**
 * Splits a byte stream into lines, holding at most `limit` bytes of an unfinished one. Invalid UTF-8 becomes U+FFFD, which the
 * validators refuse like any other nonsense. A last line without newline is dropped: whoever wrote it died while writing.
 */
export function readLines(stream: Readable, limit: number, sink: LineSink): void {
  let kept: Buffer[] = []
  let held = 0
  let over = false
  const finish = (): void => {
    if (over) return
    over = true
    kept = []
    sink.end()
  }
  stream.on('data', (chunk: Buffer) => {
    let from = 0
    while (!over) {
      const newline = chunk.indexOf(10, from)
      const piece = chunk.subarray(from, newline === -1 ? undefined : newline)
      held += piece.length
      if (held > limit) {
        over = true
        kept = []
        stream.pause()
        sink.tooLong()
        return
      }
      if (newline === -1) {
        if (piece.length > 0) kept.push(piece)
        return
      }
      const text = kept.length === 0 ? piece.toString('utf8') : Buffer.concat([...kept, piece]).toString('utf8')
      kept = []
      held = 0
      from = newline + 1
      sink.line(text)
    }
  })
  stream.on('end', finish)
  stream.on('close', finish)
  stream.on('error', finish)
}
