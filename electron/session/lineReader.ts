/** Lines out of pieces of a stream, bounded: a line longer than `limit` bytes is an error told once, and reading goes on after it. */
export class LineReader {
  private parts: Buffer[] = []
  private length = 0
  private tooLong = false
  private readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }

  /** Null stands for a line that was too long. */
  *push(piece: Buffer): Generator<string | null> {
    let at = 0
    for (;;) {
      const end = piece.indexOf(10, at)
      const part = piece.subarray(at, end < 0 ? piece.length : end)
      this.length += part.length
      if (this.length > this.limit) {
        this.tooLong = true
        this.parts = []
      } else if (part.length > 0) {
        this.parts.push(part)
      }
      if (end < 0) return
      yield this.tooLong ? null : Buffer.concat(this.parts).toString('utf8')
      this.parts = []
      this.length = 0
      this.tooLong = false
      at = end + 1
    }
  }
}
