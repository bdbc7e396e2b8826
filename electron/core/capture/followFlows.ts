import { parseAddress } from './addresses.ts'
import { decodeFact } from './decodeFacts.ts'
import type { CapturedPacket } from './decodePacket.ts'
import { decodePacket } from './decodePacket.ts'
import type { Fact } from './facts.ts'
import { blockTypes, processPen } from './pcapngFormat.ts'
import type { CaptureBlock } from './readBlocks.ts'
import { decodeLatin1 } from './utf8.ts'
import type { Direction, Transport } from '../flow/flow.ts'

/** What a block means (`repeated`: the same was said in an earlier segment, and heard): a fact, a packet of an open flow, Wireshark's process block of the flow named just before, or nothing of ours. */
export type FollowedBlock =
  | { readonly kind: 'fact'; readonly fact: Fact; readonly repeated: boolean }
  | { readonly kind: 'packet'; readonly flow: number; readonly direction: Direction; readonly packet: CapturedPacket }
  | { readonly kind: 'process-note'; readonly flow: number; readonly repeated: boolean }
  | { readonly kind: 'other' }

const other: FollowedBlock = { kind: 'other' }

function endpointKey(address: Uint8Array, port: number): string {
  return decodeLatin1(address) + String.fromCharCode(port)
}

interface OpenFlow {
  readonly id: number
  readonly clientKey: string
  readonly keys: readonly [string, string]
  /** Facts heard of it. */
  readonly heard: Set<Fact['t']>
}

/**
 * Tells which flow a block belongs to, going through a capture in order: packets between a flow's open and close fact with its
 * addresses, either way round, are its own. Holds open flows only.
 */
export class FlowFollower {
  private readonly byKey = new Map<string, OpenFlow>()
  private readonly byId = new Map<number, OpenFlow>()
  private lastProcess = 0
  private lastRepeated = false

  get open(): number {
    return this.byId.size
  }

  isOpen(flow: number): boolean {
    return this.byId.has(flow)
  }

  follow(block: CaptureBlock): FollowedBlock {
    if (block.type === blockTypes.enhancedPacket) {
      const packet = decodePacket(block)
      if (packet === null) return other
      const from = endpointKey(packet.from, packet.fromPort)
      const flow = this.byKey.get(packet.transport + from + endpointKey(packet.to, packet.toPort))
      if (flow === undefined) return other
      return { kind: 'packet', flow: flow.id, direction: packet.direction ?? (from === flow.clientKey ? 'up' : 'down'), packet }
    }
    const fact = decodeFact(block)
    if (fact === null) {
      const { body } = block
      const pen = block.type === blockTypes.custom && body.length >= 4 ? body[0]! | (body[1]! << 8) | (body[2]! << 16) | (body[3]! << 24) : 0
      return pen === processPen && this.lastProcess !== 0 ? { kind: 'process-note', flow: this.lastProcess, repeated: this.lastRepeated } : other
    }
    const repeated = 'again' in fact && fact.again === true && this.byId.get(fact.id)?.heard.has(fact.t) === true
    if (fact.t === 'open') {
      if (!repeated && !this.begin(fact.id, fact.proto, fact.client, fact.server)) return other
    } else if (fact.t === 'close') {
      this.end(fact.id)
    }
    if ('id' in fact) this.byId.get(fact.id)?.heard.add(fact.t)
    this.lastProcess = fact.t === 'process' ? fact.id : 0
    this.lastRepeated = repeated
    return { kind: 'fact', fact, repeated }
  }

  /** False for addresses that are none and for an id that is open already. */
  private begin(id: number, transport: Transport, client: { address: string; port: number }, server: { address: string; port: number }): boolean {
    const [clientBytes, serverBytes] = [parseAddress(client.address), parseAddress(server.address)]
    if (clientBytes === null || serverBytes === null || clientBytes.length !== serverBytes.length || this.byId.has(id)) return false
    const clientKey = endpointKey(clientBytes, client.port)
    const serverKey = endpointKey(serverBytes, server.port)
    const flow: OpenFlow = { id, clientKey, keys: [transport + clientKey + serverKey, transport + serverKey + clientKey], heard: new Set() }
    this.byId.set(id, flow)
    for (const key of flow.keys) this.byKey.set(key, flow)
    return true
  }

  private end(id: number): void {
    const flow = this.byId.get(id)
    if (flow === undefined) return
    this.byId.delete(id)
    for (const key of flow.keys) if (this.byKey.get(key) === flow) this.byKey.delete(key)
  }
}
