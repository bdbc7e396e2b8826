import { Failure } from '#core/contract/failure.ts'
import { endpointText } from '#core/filter/fields.ts'
import type { DnsTransaction, FlowDetails, HttpExchange, TcpLeg } from '#core/flow/flow.ts'
import type { InspectorClient } from '#session/inspectorClient.ts'
import type { Command } from './command.ts'
import { counted, formatBytes, formatClock, formatDuration, formatTime, hexLines } from './format.ts'
import type { Output } from './output.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { printable, printableLines } from './printable.ts'
import { flowNumber, withSession } from './sessions.ts'

const defaultBytes = 16_384
const exchangePage = 100
const bytePage = 65_536

export const showCommand: Command = {
  name: 'show',
  summary: 'shows one flow: overview, requests, responses, bodies, bytes',
  usage: `sluice show NAME.sluice FLOW [--stream] [--raw] [--bytes N] [--json]

  FLOW             number of the flow, as sluice flows lists it
  --stream         the bytes of both directions as hex, of HTTP flows too
  --raw            bodies as they were sent, not unpacked
  --bytes N        at most so many bytes of each body and of the stream (${defaultBytes}); 0: all
  --json           the flow as one object: FlowDetails with every exchange, without bodies`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { stream: { type: 'boolean' }, raw: { type: 'boolean' }, bytes: { type: 'string' }, json: { type: 'boolean' } })
    const [name = '', number = ''] = takePositionals(positionals, 'the session (NAME.sluice)', 'the number of the flow')
    const flow = flowNumber(number)
    if (values.bytes !== undefined && !/^\d{1,15}$/.test(values.bytes)) throw new Failure('usage', `--bytes takes a number, not "${values.bytes}"`)
    const limit = values.bytes === undefined ? defaultBytes : Number(values.bytes) === 0 ? Infinity : Number(values.bytes)
    await withSession(name, output.gone, async (inspector) => {
      const first = await inspector.request('flow', { flow, exchangeOffset: 0, exchangeLimit: exchangePage })
      if (values.json === true) return showJson(inspector, first, output)
      await showOverview(first, output)
      for await (const exchange of readExchanges(inspector, first)) await showExchange(inspector, first, exchange, { limit, decoded: values.raw !== true }, output)
      if (values.stream === true || (first.exchangeCount === 0 && first.row.dns === undefined) || first.exchanges.some((each) => each.upgraded !== undefined)) await showStream(inspector, first.row, limit, output)
    })
    return 0
  },
}

async function* readExchanges(inspector: InspectorClient, first: FlowDetails): AsyncGenerator<HttpExchange> {
  yield* first.exchanges
  for (let offset = first.exchanges.length; offset > 0 && offset < first.exchangeCount; ) {
    const { exchanges } = await inspector.request('flow', { flow: first.row.id, exchangeOffset: offset, exchangeLimit: exchangePage })
    if (exchanges.length === 0) return
    yield* exchanges
    offset += exchanges.length
  }
}

/** Written while it is read, as a flow may hold very many exchanges. */
async function showJson(inspector: InspectorClient, first: FlowDetails, output: Output): Promise<void> {
  const { exchanges: _, ...rest } = first
  await output.write(`${JSON.stringify(rest).slice(0, -1)},"exchanges":[`)
  let separator = ''
  for await (const exchange of readExchanges(inspector, first)) {
    await output.write(separator + JSON.stringify(exchange))
    separator = ','
  }
  await output.line(']}')
}

/** A leg of the flow, measured by the kernel. */
function legText(leg: TcpLeg | undefined): string | undefined {
  if (leg === undefined) return undefined
  const milliseconds = (microseconds: number): string => `${(microseconds / 1000).toFixed(3)} ms`
  return `round trip ${milliseconds(leg.rtt)}${leg.minRtt === undefined ? '' : ` (shortest ${milliseconds(leg.minRtt)})`}, ${leg.retransmits} sent again, segments of ${leg.mss} bytes`
}

async function showOverview(details: FlowDetails, output: Output): Promise<void> {
  const { row, process } = details
  const facts: [string, string | undefined][] = [
    ['Info', row.info],
    ['Client', endpointText(row.client)],
    ['Server', endpointText(row.server) + (row.name === undefined ? '' : ` (${row.name})`)],
    ['Program', process === undefined ? undefined : `${process.name === '' ? 'unknown' : process.name} (pid ${process.pid}, user ${process.user})${process.path === '' ? '' : ` ${process.path}`}`],
    ['Command', process === undefined || process.cmdline.length === 0 ? undefined : process.cmdline.join(' ')],
    ['Started', formatTime(row.startedAt)],
    ['Handed to', details.via],
    ['Connected', details.connectedAt === undefined ? undefined : `after ${formatDuration(row.startedAt, details.connectedAt)}${details.upstream === undefined ? '' : `, from ${endpointText(details.upstream)}`}`],
    ['Ended', row.endedAt === undefined ? undefined : `after ${formatDuration(row.startedAt, row.endedAt)}`],
    ['Datagrams', row.datagramsUp === undefined ? undefined : `${row.datagramsUp} up, ${row.datagramsDown ?? 0} down${details.datagramsDropped === undefined ? '' : `; not sent on: ${details.datagramsDropped.up} up, ${details.datagramsDropped.down} down`}`],
    ['Bytes', `${row.bytesUp} up, ${row.bytesDown} down${row.bytesLost === 0 ? '' : `, ${row.bytesLost} of them not recorded`}`],
    ['To client', legText(details.legs?.client)],
    ['To server', legText(details.legs?.server)],
    ['TLS', row.tls === undefined ? undefined : [row.tls.versionOffered && row.tls.version !== undefined ? `${row.tls.version} offered` : row.tls.version, row.tls.cipher, row.tls.sni === undefined ? undefined : `for ${row.tls.sni}`, row.tls.alpn === undefined ? undefined : `ALPN ${row.tls.alpn}`, row.tls.alpnOffered.length === 0 ? undefined : `offered ${row.tls.alpnOffered.join(', ')}`].filter((each) => each !== undefined).join('; ')],
    ['QUIC', row.quic === undefined ? undefined : [row.quic.version, row.quic.sni === undefined ? undefined : `for ${row.quic.sni}`, row.quic.alpnOffered.length === 0 ? undefined : `offered ${row.quic.alpnOffered.join(', ')}`, `connection ${row.quic.destinationId}`, row.quic.retried === true ? 'retried' : undefined, row.quic.versionsOffered === undefined ? undefined : `server speaks ${row.quic.versionsOffered.join(', ')}`].filter((each) => each !== undefined).join('; ')],
    ['Trouble', details.decodeError ?? (row.undecodable ? 'could not be decoded' : undefined)],
  ]
  await output.line(`Flow ${row.id}: ${row.protocol}${row.transport === 'udp' ? ' over UDP' : ''}, ${row.scope}, ${row.state}${row.closedBy === 'none' ? '' : `, closed by ${row.closedBy}`}`)
  for (const [title, fact] of facts) if (fact !== undefined) await output.line(`  ${title.padEnd(10)} ${printable(fact)}`)
  for (const transaction of details.dns ?? []) await showTransaction(transaction, output)
  if (row.dns !== undefined && row.dns.transactions > (details.dns?.length ?? 0)) await output.line(`  [${row.dns.transactions - (details.dns?.length ?? 0)} more questions]`)
  for (const gap of details.gaps) await output.line(`  Gap        ${gap.bytes} bytes ${gap.direction} at ${gap.offset} not recorded (${printable(gap.reason)})`)
}

async function showTransaction({ id, name, type, askedAt, answeredAt, rcode, flags, answers, answerCount }: DnsTransaction, output: Output): Promise<void> {
  const took = askedAt === undefined || answeredAt === undefined ? '' : ` after ${formatDuration(askedAt, answeredAt)}`
  const answered = rcode === undefined ? 'no answer' : `${rcode}${took}${flags === undefined || flags.length === 0 ? '' : ` (${flags.join(' ')})`}`
  await output.line(`\nQuestion ${id}: ${printable(`${type} ${name}`)}: ${printable(answered)}`)
  for (const record of answers) await output.line(`< ${printable(`${record.name} ${record.ttl} ${record.type} ${record.data}`)}`)
  if (answerCount > answers.length) await output.line(`[${answerCount - answers.length} more records]`)
}

interface BodyChoice {
  readonly limit: number
  readonly decoded: boolean
}

async function showExchange(inspector: InspectorClient, details: FlowDetails, exchange: HttpExchange, choice: BodyChoice, output: Output): Promise<void> {
  const { request, response } = exchange
  await output.line(`\nRequest ${exchange.index + 1} of ${details.exchangeCount}: ${printable(request.url)}`)
  await output.line(`> ${printable(`${request.method} ${request.target} ${request.version}`)}`)
  for (const header of request.headers) await output.line(`> ${printable(`${header.name}: ${header.value}`)}`)
  await showBody(inspector, details.row.id, exchange, 'request', choice, output)
  for (const status of exchange.interim) await output.line(`< ${status} (interim)`)
  if (response !== undefined) {
    const took = formatDuration(request.startedAt, response.endedAt ?? response.startedAt)
    await output.line(`\nResponse${response.endedAt === undefined ? '' : ` after ${took}`}`)
    await output.line(`< ${printable(`${response.version} ${response.status} ${response.statusText}`.trimEnd())}`)
    for (const header of response.headers) await output.line(`< ${printable(`${header.name}: ${header.value}`)}`)
    await showBody(inspector, details.row.id, exchange, 'response', choice, output)
  } else await output.line('\nNo response')
  if (exchange.upgraded !== undefined) await output.line(`The flow went over to ${printable(exchange.upgraded)} here`)
  if (exchange.error !== undefined) await output.line(`Trouble: ${printable(exchange.error)}`)
}

async function showBody(inspector: InspectorClient, flow: number, exchange: HttpExchange, part: 'request' | 'response', choice: BodyChoice, output: Output): Promise<void> {
  const body = exchange[part]?.body
  if (body === undefined || body.length === 0) return
  let shown = 0
  let total = 0
  let text: boolean | undefined
  let trouble: string | undefined
  const decoder = new TextDecoder()
  let rest = ''
  await output.line()
  while (shown < choice.limit) {
    const answer = await inspector.request('body', { flow, exchange: exchange.index, part, decoded: choice.decoded, offset: shown, limit: Math.min(bytePage, choice.limit - shown) })
    const bytes = Buffer.from(answer.bytes, 'base64')
    total = answer.total
    trouble = answer.error
    if (bytes.length === 0) break
    text ??= looksLikeText(bytes)
    if (text) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
      // Minified pages are one line: it is let out in stretches.
      rest = (lines.pop() ?? '').slice(0, 1 << 20)
      for (const line of lines) await output.line(printableLines(line.replace(/\r$/, '')).join(''))
    } else for (const line of hexLines(bytes, shown)) await output.line(line)
    shown += bytes.length
  }
  if (rest !== '') await output.line(printableLines(rest).join(''))
  if (shown < total) await output.line(`[${total - shown} more bytes; --bytes 0 shows all]`)
  if (trouble !== undefined) await output.line(`[${printable(trouble)}]`)
  if (body.truncated) await output.line('[the body is not whole]')
}

/** UTF-8 (but for an end that is cut) with hardly a control character. */
function looksLikeText(bytes: Uint8Array): boolean {
  const text = new TextDecoder().decode(bytes.subarray(0, 4096))
  let strange = 0
  for (const unit of text) if (unit === '\ufffd' || (unit < ' ' && !'\t\n\r\f\u001b'.includes(unit))) strange++
  return strange <= 1 + text.length / 100 && !text.includes('\0')
}

async function showStream(inspector: InspectorClient, { id: flow, transport }: FlowDetails['row'], limit: number, output: Output): Promise<void> {
  const datagrams = transport === 'udp'
  await output.line('\nStream (> client to server, < server to client)')
  let at = 0
  for (;;) {
    if (at >= limit) break
    const { chunks, total } = await inspector.request('stream', { flow, direction: 'both', offset: at, limit: Math.min(bytePage, limit - at) })
    let took = 0
    for (const chunk of chunks) {
      if (datagrams) await output.line(`${chunk.direction === 'up' ? '>' : '<'} ${formatClock(chunk.time)} datagram of ${counted(chunk.length, 'byte')}`)
      const sign = chunk.direction === 'up' ? '>' : '<'
      if (chunk.bytes === undefined) await output.line(`${sign} [${counted(chunk.length, 'byte')} at ${chunk.offset} not recorded]`)
      else for (const line of hexLines(Buffer.from(chunk.bytes, 'base64'), chunk.offset)) await output.line(`${sign} ${line}`)
      took += chunk.length
    }
    at += took
    if (took === 0 || at >= total) {
      if (total === 0) await output.line('(no bytes)')
      return
    }
    if (at >= limit) await output.line(`[${formatBytes(total - at)} more; --bytes 0 shows all]`)
  }
}
