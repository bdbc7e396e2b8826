import type { FlowDetails } from '#core/flow/flow.ts'
import type { Scope } from '#core/plan/plan.ts'
import { protocolNames, stateSentences, isFailed } from './flowLook.ts'
import { nameOf, urlOf } from './flowCells.ts'
import { formatBytes, formatCount, formatDuration, formatEndpoint, formatMoment, millisecondsBetween, plural } from './format.ts'

export interface Fact {
  readonly name: string
  readonly value: string
  readonly note?: string | undefined
  readonly copy?: string | undefined
  readonly mono?: boolean
  readonly bad?: boolean
}

const closers = { client: 'The client closed first.', server: 'The server closed first.', gate: 'The gate closed it.', none: '' }
/** Why bytes are missing, by the reason the relay wrote. */
const gapReasons: Readonly<Record<string, string>> = {
  'no-payload': 'payload was not to be kept',
  'flow-cap': 'beyond the limit a flow',
  slow: 'the disk was too slow',
  'session-cap': 'beyond the limit of the session',
}

/** The conversation: between whom, what, how it ended. */
/** Whose flow it is. */
export const scopeWords: Readonly<Record<Scope, string>> = { local: 'This computer', forwarded: 'Routed', incoming: 'Own services' }
const clientNotes: Readonly<Record<Scope, string>> = { local: 'this computer', forwarded: 'routed through this computer', incoming: 'asks a service of this computer' }

export function flowFacts({ row, upstream, via, exchangeCount, decodeError }: FlowDetails): Fact[] {
  const facts: Fact[] = []
  const name = nameOf(row)
  if (name !== undefined) facts.push({ name: 'Server', value: name, note: row.tls?.sni === name ? 'named in the TLS hello' : row.quic?.sni === name ? 'named in the QUIC hello' : 'named in the Host header', copy: name })
  facts.push(
    { name: name === undefined ? 'Server' : 'Address', value: formatEndpoint(row.server), copy: formatEndpoint(row.server) },
    { name: 'Client', value: formatEndpoint(row.client), note: clientNotes[row.scope], copy: formatEndpoint(row.client) },
  )
  if (via !== undefined) facts.push({ name: 'Handed to', value: via })
  if (upstream !== undefined) facts.push({ name: 'Upstream from', value: formatEndpoint(upstream), note: upstream.address === row.client.address ? 'the server sees the client’s own address' : undefined })
  const url = urlOf(row)
  if (url !== undefined) facts.push({ name: exchangeCount > 1 ? 'Last URL' : 'URL', value: url, copy: url })
  if (exchangeCount > 1) facts.push({ name: 'Requests', value: formatCount(exchangeCount) })
  facts.push({ name: 'State', value: `${stateSentences[row.state]} ${row.state === 'finished' ? closers[row.closedBy] : ''}`.trim(), bad: isFailed(row.state) })
  if (row.undecodable) facts.push({ name: 'Decoding', value: decodeError ?? 'A dissector gave up; the stream is still there.', bad: true })
  return facts
}

export function amountFacts({ row, gaps, datagramsDropped }: FlowDetails): Fact[] {
  const took = millisecondsBetween(row.startedAt, row.endedAt)
  const facts: Fact[] = [
    { name: 'Started', value: formatMoment(row.startedAt) },
    { name: 'Ended', value: row.endedAt === undefined ? (row.state === 'live' ? 'still open' : 'not recorded') : formatMoment(row.endedAt) },
  ]
  if (took !== undefined) facts.push({ name: 'Took', value: formatDuration(took) })
  facts.push(
    { name: 'Up', value: formatBytes(row.bytesUp), note: row.bytesUp >= 1000 ? plural(row.bytesUp, 'byte') : undefined },
    { name: 'Down', value: formatBytes(row.bytesDown), note: row.bytesDown >= 1000 ? plural(row.bytesDown, 'byte') : undefined },
  )
  if (row.datagramsUp !== undefined) facts.push({ name: 'Datagrams', value: `${formatCount(row.datagramsUp)} up, ${formatCount(row.datagramsDown ?? 0)} down` })
  if (datagramsDropped !== undefined) facts.push({ name: 'Not sent on', value: `${formatCount(datagramsDropped.up)} up, ${formatCount(datagramsDropped.down)} down`, note: 'more than the other side took', bad: true })
  if (row.bytesLost > 0) facts.push({ name: 'Not recorded', value: formatBytes(row.bytesLost), bad: true })
  for (const [i, gap] of gaps.slice(0, 20).entries()) {
    facts.push({ name: `Gap ${i + 1}`, value: `${formatBytes(gap.bytes)} ${gap.direction} at byte ${formatCount(gap.offset)}`, note: gapReasons[gap.reason] ?? gap.reason })
  }
  if (gaps.length > 20) facts.push({ name: 'More gaps', value: formatCount(gaps.length - 20) })
  return facts
}

/** The flow's two connections as the kernel measured them; nothing while it is open. */
export function legFacts({ legs }: FlowDetails): Fact[] {
  const rows = [['To the client', legs?.client], ['To the server', legs?.server]] as const
  return rows.flatMap(([name, leg]) => leg === undefined ? [] : [{
    name,
    value: `round trip ${formatDuration(leg.rtt / 1000)}`,
    note: [leg.minRtt === undefined ? undefined : `shortest ${formatDuration(leg.minRtt / 1000)}`, leg.retransmits === 0 ? 'nothing sent again' : `${plural(leg.retransmits, 'segment')} sent again`, `segments of ${formatCount(leg.mss)} bytes`]
      .filter((text) => text !== undefined).join(', '),
  }])
}

export function protocolFacts({ row }: FlowDetails): Fact[] {
  const { tls, http, dns, quic } = row
  const facts: Fact[] = [{ name: 'Protocol', value: `${protocolNames[row.protocol]} over ${row.transport.toUpperCase()}`, note: row.protocol === 'empty' ? 'no byte was sent' : row.protocol === 'raw' ? 'no dissector knows it; see Stream' : undefined }]
  if (http !== undefined && http.status !== undefined) facts.push({ name: 'Last status', value: String(http.status) })
  if (tls !== undefined) {
    if (tls.version !== undefined) facts.push({ name: 'Version', value: tls.version, note: tls.versionOffered ? 'highest the client offered' : 'chosen by the server' })
    if (tls.cipher !== undefined) facts.push({ name: 'Cipher', value: tls.cipher, mono: true })
    if (tls.sni !== undefined) facts.push({ name: 'Name asked for', value: tls.sni, copy: tls.sni })
    if (tls.alpnOffered.length > 0) facts.push({ name: 'Offered', value: tls.alpnOffered.join(', '), note: 'application protocols' })
    if (tls.alpn !== undefined) facts.push({ name: 'Chosen', value: tls.alpn, note: 'application protocol' })
  }
  if (quic !== undefined) {
    facts.push({ name: 'Version', value: quic.version })
    if (quic.sni !== undefined) facts.push({ name: 'Name asked for', value: quic.sni, copy: quic.sni })
    if (quic.alpnOffered.length > 0) facts.push({ name: 'Offered', value: quic.alpnOffered.join(', '), note: 'application protocols' })
    facts.push({ name: 'Connection', value: quic.destinationId, note: 'id the client chose', mono: true, copy: quic.destinationId })
    if (quic.retried === true) facts.push({ name: 'Retry', value: 'The server asked the client to prove its address' })
    if (quic.versionsOffered !== undefined) facts.push({ name: 'Server speaks', value: quic.versionsOffered.join(', ') })
  }
  if (dns !== undefined) {
    facts.push({ name: 'Question', value: `${dns.type} ${dns.name}`, copy: dns.name })
    if (dns.rcode !== undefined) facts.push({ name: 'Answer', value: dns.rcode, bad: dns.rcode !== 'NOERROR' })
    if (dns.transactions > 1) facts.push({ name: 'Questions', value: formatCount(dns.transactions) })
  }
  return facts
}

/** A DNS flow's questions with their answers, one line each. */
export function dnsFacts({ dns = [] }: FlowDetails): Fact[] {
  return dns.map(({ name, type, rcode, askedAt, answeredAt, answers, answerCount }, index) => {
    const took = askedAt === undefined ? undefined : millisecondsBetween(askedAt, answeredAt)
    const said = answers.map((record) => `${record.type} ${record.data}`).join(', ')
    return {
      name: `${index + 1}. ${type} ${name}`,
      value: rcode === undefined ? 'no answer' : rcode === 'NOERROR' ? (said === '' ? 'no such record' : `${said}${answerCount > answers.length ? ', …' : ''}`) : rcode,
      note: took === undefined ? undefined : formatDuration(took), bad: rcode !== undefined && rcode !== 'NOERROR', copy: said === '' ? undefined : said,
    }
  })
}

export function processFacts({ process, row }: FlowDetails): Fact[] {
  if (process === undefined) return []
  return [
    { name: 'Program', value: process.name, copy: process.name },
    { name: 'Path', value: process.path === '' ? 'unknown' : process.path, mono: true, copy: process.path },
    { name: 'Process', value: String(process.pid), note: `started by ${process.ppid}` },
    { name: 'User', value: process.user, note: `uid ${process.uid}` },
    { name: 'Scope', value: scopeWords[row.scope] },
  ]
}

/** A command line as a shell would take it. */
export function shellLine(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ')
}
