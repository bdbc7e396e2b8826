import type { DatagramContext, DatagramDissector, DatagramFindings, DatagramKind } from './datagram.ts'
import { dnsKind } from './dns.ts'
import type { HeadBudget, Holder } from './headBudget.ts'
import { quicKind } from './quic.ts'
import { decodeLatin1 } from '../capture/utf8.ts'
import { escapeText } from '../flow/escapeText.ts'
import type { Direction, DnsTransaction, FlowProtocol } from '../flow/flow.ts'

export const datagramKinds: readonly DatagramKind[] = [quicKind, dnsKind]
const previewBytes = 48

/**
 * What a flow of UDP turns out to be: its first datagram decides which dissector it is given to, and each is a whole of its own, so that a missing one
 * spoils nothing. Never throws.
 */
export class DatagramDissection implements Holder {
  private readonly context: DatagramContext
  private readonly budget: HeadBudget
  private dissector: DatagramDissector | null = null
  private kind: FlowProtocol | null = null
  private decided = false
  private first: { readonly direction: Direction; readonly bytes: Uint8Array } | null = null
  private bytes = 0
  private count = 0
  readonly error = undefined
  /** A datagram that makes no sense is passed over; the flow stays what it is. */
  readonly undecodable = false

  constructor(context: DatagramContext, budget: HeadBudget) {
    this.context = context
    this.budget = budget
  }

  get protocol(): FlowProtocol {
    if (this.findings() !== null) return this.kind!
    return this.count === 0 ? 'empty' : 'raw'
  }

  datagram(direction: Direction, bytes: Uint8Array, time: bigint): void {
    this.missed(1, bytes.length)
    if (bytes.length === 0) return
    this.first ??= { direction, bytes: bytes.slice(0, previewBytes) }
    if (!this.decided) this.decide(direction, bytes)
    this.dissector?.datagram(direction, bytes, time)
    if (this.dissector !== null) this.budget.set(this, this.dissector.held())
  }

  /** Datagrams relayed and not recorded. */
  missed(count: number, bytes: number): void {
    this.count += count
    this.bytes += bytes
  }

  private decide(direction: Direction, bytes: Uint8Array): void {
    this.decided = true
    const kind = datagramKinds.find((each) => each.bid(direction, bytes, this.context) === 'mine')
    if (kind === undefined) return
    this.kind = kind.protocol
    this.dissector = kind.make(this.context)
  }

  close(): void {
    this.dissector?.release()
    this.budget.set(this, 0)
  }
  derail(): void {
    this.dissector?.release()
  }

  findings(): DatagramFindings | null {
    return this.dissector?.findings() ?? null
  }
  transactions(): readonly DnsTransaction[] {
    return this.dissector?.transactions?.() ?? []
  }

  /** One line for the list; see FlowRow.info. */
  info(): string {
    const findings = this.findings()
    if (findings !== null) return findings.info
    if (this.count === 0) return ''
    const amount = `raw: ${String(this.count)} ${this.count === 1 ? 'datagram' : 'datagrams'}, ${String(this.bytes)} bytes`
    return this.first === null ? amount : `${amount}, ${this.first.direction === 'up' ? 'client' : 'server'} began “${escapeText(decodeLatin1(this.first.bytes), 120)}”`
  }
}
