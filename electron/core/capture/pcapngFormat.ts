/**
 * Numbers of pcapng (draft-ietf-opsawg-pcapng) and of Sluice's own custom blocks (ARCHITECTURE.md, "The capture").
 * Sluice writes and reads little-endian files with one section and one interface.
 */
export const blockTypes = {
  sectionHeader: 0x0a0d0d0a,
  interfaceDescription: 0x00000001,
  enhancedPacket: 0x00000006,
  custom: 0x00000bad,
  /** Fills a page of the file, where the relay writes past the page cache; of the types pcapng leaves for local use. */
  padding: 0x80534c50,
} as const
export const byteOrderMagic = 0x1a2b3c4d
/** LINKTYPE_RAW: a packet begins with its IP header. */
export const linkTypeRaw = 101
/** Nobody's number (RFC 5612, for examples): Sluice has none of its own. */
export const factPen = 32473
/** The number under which Wireshark reads process blocks (entry type 3). */
export const processPen = 32622
/** First eight bytes of a fact's custom data: "SLUICE1" and a NUL. */
export const factMagic: readonly number[] = [0x53, 0x4c, 0x55, 0x49, 0x43, 0x45, 0x31, 0]
/** epb_flags, bits 0 and 1. Inbound is server to client, outbound client to server. */
export const packetFlags = { inbound: 1, outbound: 2 } as const
/** Payload bytes one Enhanced Packet Block holds at most: what fits an IPv4 packet's 65,535 with both headers, rounded down. */
export const payloadLimit = 65_480
/** A block longer than this is damage or malice: nothing Sluice writes comes near. */
export const blockLimit = 16 * 1024 * 1024

export const tcpFlags = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const
