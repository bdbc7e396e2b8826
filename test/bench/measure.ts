import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'

/** Resident memory of the process, KiB. */
export function residentKib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
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
  readonly bytesUp?: number
  readonly bytesDown?: number
}

/** The capture's own facts. Only block heads are read of the rest: the files are gigabytes. */
export function* readFacts(folder: string): Generator<BenchFact> {
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.pcapng')).sort()) {
    const file = openSync(join(folder, name), 'r')
    const head = Buffer.alloc(12)
    for (let at = 0; readSync(file, head, 0, 12, at) === 12; at += head.readUInt32LE(4)) {
      if (head.readUInt32LE(0) !== 0x0bad || head.readUInt32LE(8) !== 32_473) continue
      const body = Buffer.alloc(head.readUInt32LE(4) - 24)
      readSync(file, body, 0, body.length, at + 20)
      yield JSON.parse(body.toString().split('\0')[0] ?? '{}') as BenchFact
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
