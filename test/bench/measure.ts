import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'

/** Resident memory of the process, KiB. */
export function residentKib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
}

/** Its proportional share of what is resident, KiB: pages that several processes have count by how many those are. */
export function proportionalKib(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
}

/** User and system time of all its threads so far, seconds (clock ticks are 10 ms on every Linux of today). */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

export interface BenchFact {
  readonly t: string
  readonly id?: number
  readonly bytes?: number
  readonly again?: boolean
  readonly reason?: string
  readonly bytesUp?: number
  readonly bytesDown?: number
  readonly lostUp?: number
  readonly lostDown?: number
}

/** The capture's own facts. Only block heads are read of the rest: the files are gigabytes. */
export function* readFacts(folder: string): Generator<BenchFact> {
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.pcapng')).sort()) {
    const file = openSync(join(folder, name), 'r')
    const ahead = Buffer.alloc(1 << 20)
    let [begin, end] = [0, 0]
    /** So many bytes of the file from there on, valid until the next call; fewer at its end. */
    const bytes = (at: number, size: number): Buffer => {
      if (at < begin || at + size > end) [begin, end] = [at, at + readSync(file, ahead, 0, ahead.length, at)]
      return ahead.subarray(at - begin, Math.min(at - begin + size, end - begin))
    }
    for (let at = 0; ; ) {
      const head = bytes(at, 12)
      if (head.length < 12) break
      const length = head.readUInt32LE(4)
      if (head.readUInt32LE(0) === 0x0bad && head.readUInt32LE(8) === 32_473) yield JSON.parse(bytes(at + 20, length - 24).toString().split('\0')[0] ?? '{}') as BenchFact
      at += length
    }
    closeSync(file)
  }
}

/** Share of relayed bytes whose payload is not in the capture. */
export function lostShare(folder: string): number {
  let relayed = 0
  let lost = 0
  for (const fact of readFacts(folder)) {
    if (fact.t === 'gap') lost += fact.bytes ?? 0
    if (fact.t === 'close') relayed += (fact.bytesUp ?? 0) + (fact.bytesDown ?? 0)
  }
  return relayed === 0 ? Number.NaN : lost / relayed
}

/** NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length === 0 ? Number.NaN : sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}
