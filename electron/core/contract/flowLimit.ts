/** Flows at once where nothing else was asked for; who comes beyond is reset, which is recorded as `shed` and warned of. Two descriptors each. */
export const usualFlows = 8192
/** What the relay takes for a number of them; its descriptors and memory may allow less. */
export const mostFlows = 1_000_000

/** One to each side. */
const filesAFlow = 2
/** What else the relay opens: the pipes that bytes are spliced through, the record, each thread's listeners and what it waits by. */
const filesElsewhere = (threads: number): number => 160 + 16 * threads

/** Flows that a relay of so many threads has room for when it may open that many files. */
export const flowsWithin = (files: number, threads = 1): number => Math.max(0, Math.floor((files - filesElsewhere(threads)) / filesAFlow))
/** Files that a relay of one thread opens with so many flows. */
export const filesFor = (flows: number): number => flows * filesAFlow + filesElsewhere(1)

/** What a process may open. The relay raises its own limit to the hard one of whoever started it. */
export interface FileLimit {
  readonly hard: number
  /** The hard one is above fs.nr_open: setrlimit(2) keeps no such one. */
  readonly tooHigh: boolean
  /** What the relay will have: the soft one where the hard one is too high. */
  readonly files: number
}

/** `limits`: text of /proc/PID/limits, proc(5); `nrOpen`: of /proc/sys/fs/nr_open, empty where it could not be read. Undefined where the first names no limit of open files. */
export function readFileLimit(limits: string, nrOpen: string): FileLimit | undefined {
  const [soft, hard] = (/^Max open files\s+(\S+)\s+(\S+)/m.exec(limits)?.slice(1) ?? []).map((word) => (word === 'unlimited' ? Infinity : Number(word)))
  if (soft === undefined || hard === undefined) return undefined
  const tooHigh = nrOpen !== '' && hard > Number(nrOpen)
  return { hard, tooHigh, files: tooHigh ? soft : hard }
}
