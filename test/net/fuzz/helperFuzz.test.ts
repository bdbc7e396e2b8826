import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'

import { actionLogPath, parseActions } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'
import { helperLineLimit } from '#core/contract/helperProtocol.ts'
import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'

import { expectClean, makeProgramFolder, makeSession, namespaceInode, openArguments, person, snapshot } from '../helper/harness.ts'

/**
 * Whoever speaks to the helper is somebody else's program. Whatever they send, in whatever order: the helper lives on or ends in good order, no tool is given anything but
 * what a valid plan compiles to, and nothing is left. The witness is the helper's own log of what it ran.
 */
let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let lab: Lab
let before: string
let namespace: string
/** What stands in the log from here on was written meanwhile. */
let logFrom: number

beforeAll(async () => {
  programs = await makeProgramFolder()
})
afterAll(() => programs.remove())
beforeEach(async () => {
  lab = await makeLab()
  before = await snapshot(lab)
  namespace = namespaceInode(lab)
  // Of an older namespace with this number, whose Sluice was killed.
  for (const end of ['json', 'lock']) rmSync(`/run/sluice/${namespace}.${end}`, { force: true })
  logFrom = logSize()
})
afterEach(() => lab.remove())

interface Talk {
  /** null: it did not end in time. */
  readonly code: number | null
  readonly lines: readonly string[]
}
/** The real helper, given these chunks as they are; then, once it has answered the request `until` (default: at once), the end of input. */
async function talk(chunks: readonly (string | Uint8Array)[], { until, within = 15_000 }: { readonly until?: number; readonly within?: number } = {}): Promise<Talk> {
  const [command = '', ...words] = lab.enter('router')
  const child: ChildProcess = spawn(command, [...words, process.execPath, join(programs.folder, 'helper.mjs')], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SUDO_UID: String(person.uid) },
  })
  let said = ''
  child.stdin?.on('error', () => undefined)
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text
    if (until !== undefined && said.includes(`{"id":${String(until)},`)) child.stdin?.end()
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  for (const chunk of chunks) child.stdin?.write(chunk)
  if (until === undefined) child.stdin?.end()
  const timer = setTimeout(() => child.kill('SIGKILL'), within)
  const code = await ended
  clearTimeout(timer)
  return { code, lines: said.split('\n').filter((line) => line !== '') }
}

const hello = '{"id":1,"type":"hello","protocol":1}\n'
const valid = (name = 'fuzz'): object => ({ id: 2, type: 'open', ...openArguments(makeSession(programs, name), 'nft') })

/** Every line the helper prints is one of its own kinds, whatever it was told. */
function expectProtocol({ code, lines }: Talk): void {
  expect([0, 1]).toContain(code)
  for (const line of lines) {
    const said = JSON.parse(line) as { id?: unknown; ok?: unknown; event?: unknown }
    expect(typeof said.event === 'string' || (typeof said.id === 'number' && typeof said.ok === 'boolean')).toBe(true)
  }
}
/** What the helpers of this laboratory did: notes are no doing. */
function done(): Action[] {
  const file = openSync(actionLogPath, 'r')
  try {
    const buffer = Buffer.alloc(Math.max(0, fstatSync(file).size - logFrom))
    readSync(file, buffer, 0, buffer.length, logFrom)
    return parseActions(buffer.toString('utf8')).filter((action) => action.namespace === namespace && action.result !== 'note')
  } finally {
    closeSync(file)
  }
}
function logSize(): number {
  try {
    const file = openSync(actionLogPath, 'r')
    const { size } = fstatSync(file)
    closeSync(file)
    return size
  } catch {
    return 0
  }
}

const rubbish = fc.oneof(
  fc.uint8Array({ maxLength: 400 }),
  fc.string({ unit: 'binary', maxLength: 300 }).map((text) => `${text}\n`),
  fc.json({ maxDepth: 3 }).map((text) => `${text}\n`),
  fc.object({ maxDepth: 2 }).map((value) => `${JSON.stringify({ id: 3, type: 'open', ...value })}\n`),
  fc.record({ id: fc.oneof(fc.integer(), fc.double(), fc.string(), fc.constant(null)), type: fc.constantFrom('hello', 'open', 'drain', 'close', 'cleanup', 'change', 'exec', '__proto__') }).map((value) => `${JSON.stringify(value)}\n`),
)
const shell = [';', '&&', '|', '`id`', '$(id)', '\n', '"', "'", '}', '{', ' } ; flush ruleset; #', '\n*filter\n:INPUT DROP\n', '-j DROP', '--flush', '../../etc/passwd', '\0', '\u2028', '{"', 'eth0; reboot', 'inet', '0.0.0.0/0 accept']

test('random bytes, JSON that is no request, wrong order: no tool is given anything', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(rubbish, { minLength: 1, maxLength: 12 }), fc.boolean(), async (chunks, greeted) => {
      expectProtocol(await talk(greeted ? [hello, ...chunks] : chunks))
    }),
    { numRuns: 40, interruptAfterTimeLimit: 25_000 },
  )
  expect(done()).toEqual([])
  await expectClean(lab, before)
})

test('a valid request cut anywhere, or with one byte turned: refused, or the very same plan', async () => {
  const text = `${JSON.stringify(valid())}\n`
  const cuts = fc.nat(text.length - 2).map((at) => text.slice(0, at))
  const turns = fc.tuple(fc.nat(text.length - 2), fc.integer({ min: 1, max: 126 })).map(([at, code]) => `${text.slice(0, at)}${String.fromCharCode(code)}${text.slice(at + 1)}`)
  await fc.assert(
    fc.asyncProperty(fc.oneof(cuts, turns), async (chunk) => {
      const { lines, ...rest } = await talk([hello, chunk])
      expectProtocol({ lines, ...rest })
      // A byte that changes what is asked for changes the rules, and they are no longer those of the digest.
      if (lines.some((line) => line.startsWith('{"id":2,"ok":true'))) expect(JSON.parse(chunk)).toMatchObject({ type: 'open' })
    }),
    { numRuns: 30, interruptAfterTimeLimit: 25_000 },
  )
  expectCompiled()
  await expectClean(lab, before)
}, 120_000)

test('hostile words in every field of a plan reach no tool', async () => {
  const word = fc.oneof(fc.constantFrom(...shell), fc.tuple(fc.string({ maxLength: 6 }), fc.constantFrom(...shell)).map(([a, b]) => a + b))
  const field = fc.constantFrom('interfaces', 'cgroups', 'exclude', 'users', 'tcp', 'udp', 'scope', 'backend', 'relayPort', 'table', 'marks', 'version')
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(field, word, fc.boolean()), { minLength: 1, maxLength: 3 }), async (changes) => {
      const request = valid() as { plan: Record<string, unknown> }
      const plan: Record<string, unknown> = { ...request.plan }
      for (const [name, text, listed] of changes) plan[name] = listed ? [text] : text
      const { lines } = await talk([hello, `${JSON.stringify({ ...request, plan })}\n`])
      expect(lines.some((line) => line.startsWith('{"id":2,"ok":false'))).toBe(true)
    }),
    { numRuns: 40, interruptAfterTimeLimit: 25_000 },
  )
  expect(done()).toEqual([])
  await expectClean(lab, before)
}, 120_000)

test('hostile capture folders are the relay\'s to refuse, with the person\'s rights', async () => {
  for (const folder of ['/etc', '/root', '/proc/self', 'relative', '/../../etc', '/dev/null', '/run/sluice', `/${'x'.repeat(4000)}`, '/a\nb', '/a\0b']) {
    const request = valid() as { capture: object }
    const { lines } = await talk([hello, `${JSON.stringify({ ...request, capture: { ...request.capture, folder } })}\n`], { until: 2 })
    expect(lines.some((line) => line.startsWith('{"id":2,"ok":false')), folder).toBe(true)
  }
  await expectClean(lab, before)
}, 120_000)

test('a huge plan is taken or refused whole; a line too long ends the conversation', async () => {
  const ports = Array.from({ length: 4096 }, (_, index) => ({ from: index * 15 + 1, to: index * 15 + 2 }))
  const exclude = Array.from({ length: 4096 }, (_, index) => `10.${String(index >> 8)}.${String(index & 255)}.0/24`)
  const request = { id: 2, type: 'open', ...openArguments(makeSession(programs, 'huge'), 'nft', { tcp: ports.map(({ from, to }) => `${String(from)}-${String(to)}`).join(','), exclude }) }
  const taken = await talk([hello, `${JSON.stringify(request)}\n`], { until: 2, within: 60_000 })
  expectProtocol(taken)
  expect(taken.lines.some((line) => line.startsWith('{"id":2,"ok":true'))).toBe(true)
  // The end of input comes while it opens: given up, and everything back.
  expectProtocol(await talk([hello, `${JSON.stringify(request)}\n`]))
  const over = await talk([hello, `{"id":2,"type":"open","plan":"${'x'.repeat(helperLineLimit)}`])
  expect(over.code).toBe(1)
  const tooMany = { ...request, plan: { ...request.plan, tcp: [...ports, ...ports] } }
  expect((await talk([hello, `${JSON.stringify(tooMany)}\n`])).lines.some((line) => line.startsWith('{"id":2,"ok":false'))).toBe(true)
  expectCompiled()
  await expectClean(lab, before)
}, 120_000)

test('replayed and doubled requests: one gate, and it goes with the input', async () => {
  const open = `${JSON.stringify(valid())}\n`
  const { code, lines } = await talk([hello, open, open, open, '{"id":9,"type":"drain"}\n', hello, open, '{"id":10,"type":"hello","protocol":1}\n'], { until: 9 })
  expectProtocol({ code, lines })
  expect(lines.filter((line) => line.startsWith('{"id":2,"ok":true')).length).toBeLessThanOrEqual(1)
  expectCompiled()
  await expectClean(lab, before)
}, 60_000)

/** Everything a tool was given bears our names and is made of the renderer's own words. */
function expectCompiled(): void {
  for (const { text, input } of done()) {
    expect(text).toMatch(/^\/usr\/sbin\/(?:ip -[46] (?:rule|route) (?:add|del|replace|flush) [a-z0-9/ ]+|nft (?:-i|-f -|delete (?:table|chain) [a-z0-9 ]+)|ip6?tables-(?:nft|legacy)-restore --noflush -w 5|ip -[46] (?:-force )?-batch -)$/)
    for (const line of input?.split('\n') ?? []) {
      if (line.startsWith('… and')) continue
      expect(line).toMatch(/^(?:(?:add|delete|flush) (?:table|set|chain|rule|element) inet sluice\b.*|[*:].*|-[ADX] (?:SLUICE_|PREROUTING -j SLUICE_|OUTPUT -j SLUICE_).*|COMMIT|(?:rule|route) (?:add|del|replace) [a-z0-9/ ]+|)$/)
      expect(line).not.toMatch(/[`$\\]|\b(?:include|define|accept;.*flush)\b/)
    }
  }
}
