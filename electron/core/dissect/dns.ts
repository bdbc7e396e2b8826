import type { DatagramContext, DatagramDissector, DatagramFindings, DatagramKind, DnsMessage } from './datagram.ts'
import type { Direction, DnsRecord, DnsTransaction } from '../flow/flow.ts'

const keptTransactions = 200
/** Questions not answered yet; a resolver that asks more at once loses the oldest from the pairing. */
const pendingLimit = 256
/** DNS, multicast DNS, LLMNR. */
const ownPorts: readonly number[] = [53, 5353, 5355]

interface Transaction {
  readonly id: number
  readonly name: string
  readonly type: string
  askedAt?: bigint
  answeredAt?: bigint
  rcode?: string
  flags?: readonly string[]
  answers: readonly DnsRecord[]
  answerCount: number
}

const keyOf = (id: number, name: string, type: string): string => `${String(id)} ${type} ${name.toLowerCase()}`

class DnsDissector implements DatagramDissector {
  private readonly context: DatagramContext
  private readonly kept: Transaction[] = []
  private readonly pending = new Map<string, Transaction>()
  private count = 0
  private last: Transaction | null = null

  constructor(context: DatagramContext) {
    this.context = context
  }

  datagram(direction: Direction, bytes: Uint8Array, time: bigint): void {
    const message = this.context.decoders.dns(bytes)
    if (message === null) return
    if (message.response) this.answer(message, time)
    else if (direction === 'up') this.ask(message, time)
  }

  private ask({ id, questions }: DnsMessage, time: bigint): void {
    const question = questions[0]
    if (question === undefined) return
    const key = keyOf(id, question.name, question.type)
    // Asked again because no answer came: the same transaction, and its time counts from the first.
    if (this.pending.has(key)) return
    this.add(key, { id, ...question, askedAt: time, answers: [], answerCount: 0 })
  }

  private answer({ id, questions, rcode, flags, answers, answerCount }: DnsMessage, time: bigint): void {
    const { name, type } = questions[0] ?? answers[0] ?? { name: '.', type: '?' }
    const key = keyOf(id, name, type)
    let transaction = this.pending.get(key)
    if (transaction === undefined) {
      transaction = { id, name, type, answers: [], answerCount: 0 }
      this.add(undefined, transaction)
    }
    this.pending.delete(key)
    Object.assign(transaction, { answeredAt: time, rcode, flags, answers, answerCount })
    this.last = transaction
  }

  private add(key: string | undefined, transaction: Transaction): void {
    this.count++
    this.last = transaction
    if (this.kept.length < keptTransactions) this.kept.push(transaction)
    if (key === undefined) return
    const oldest = this.pending.size >= pendingLimit ? this.pending.keys().next().value : undefined
    if (oldest !== undefined) this.pending.delete(oldest)
    this.pending.set(key, transaction)
  }

  held(): number {
    return 0
  }
  release(): void {
    // Nothing of the capture is held.
  }

  findings(): DatagramFindings | null {
    const { last, count } = this
    if (last === null) return null
    const { name, type, rcode } = last
    return { info: `${infoOf(last)}${count > 1 ? ` (${String(count)} questions)` : ''}`, dns: { name, type, ...(rcode === undefined ? {} : { rcode }), transactions: count } }
  }

  transactions(): readonly DnsTransaction[] {
    return this.kept.map(({ askedAt, answeredAt, ...rest }) => ({
      ...rest, ...(askedAt === undefined ? {} : { askedAt: String(askedAt) }), ...(answeredAt === undefined ? {} : { answeredAt: String(answeredAt) }),
    }))
  }
}

/** "A example.test → 203.0.113.5, 203.0.113.6, 1.2 ms". */
function infoOf({ name, type, rcode, answers, askedAt, answeredAt }: Transaction): string {
  const asked = `${type} ${name}`
  if (rcode === undefined) return asked
  const wanted = answers.filter((record) => record.type === type)
  const shown = wanted.slice(0, 3).map((record) => record.data).join(', ')
  const said = rcode !== 'NOERROR' ? rcode : wanted.length === 0 ? 'no such record' : shown + (wanted.length > 3 ? ', …' : '')
  const took = askedAt === undefined || answeredAt === undefined ? '' : `, ${(Number(answeredAt - askedAt) / 1e6).toFixed(1)} ms`
  return `${asked} → ${said}${took}`
}

export const dnsKind: DatagramKind = {
  protocol: 'dns',
  bid(direction, bytes, { server, decoders }) {
    const message = decoders.dns(bytes)
    if (message === null) return 'no'
    if (ownPorts.includes(server.port)) return 'mine'
    // Elsewhere only what can hardly be anything else: one plain question, the first thing a client says.
    return direction === 'up' && !message.response && message.questions.length === 1 && message.answerCount === 0 ? 'mine' : 'no'
  },
  make: (context) => new DnsDissector(context),
}
