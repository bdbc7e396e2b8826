import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'

import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { helperLineLimit, helperRequestShape } from '#core/contract/helperProtocol.ts'
import type { PlanWish } from '#core/plan/makePlan.ts'
import { planShape } from '#core/plan/plan.ts'
import type { Backend } from '#core/plan/plan.ts'
import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { seed } from '#test/support/seed.ts'

import { expectClean, makeProgramFolder, makeSession, namespaceInode, openArguments, person, planFor, snapshot } from '../helper/harness.ts'
import { asJson, rubbish, spoil } from './hostile.ts'
import { watchTools } from './toolLog.ts'
import type { ToolLog } from './toolLog.ts'

/**
 * Whoever speaks to the helper is somebody else's program. Whatever they send, in whatever order: the helper lives on or ends in good order, no tool is given anything but
 * what a valid plan compiles to, and nothing is left. The witness is the helper's own log of what it ran. FUZZ_TIMES=number makes all of it so many times longer, SEED repeats.
 */
const times = Number(process.env['FUZZ_TIMES'] ?? 1)
const timeLimit = 120_000 * times
const backends: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let lab: Lab
let before: string
let tools: ToolLog

beforeAll(async () => {
  console.log(`SEED=${String(seed)} FUZZ_TIMES=${String(times)}`)
  programs = await makeProgramFolder()
})
afterAll(() => programs.remove())
beforeEach(async () => {
  lab = await makeLab()
  before = await snapshot(lab)
  const namespace = namespaceInode(lab)
  // Of an older namespace with this number, whose Sluice was killed.
  for (const end of ['json', 'lock']) rmSync(`/run/sluice/${namespace}.${end}`, { force: true })
  tools = watchTools(namespace)
})
afterEach(() => lab.remove())

interface Talk {
  /** null: it did not end in time. */
  readonly code: number | null
  readonly lines: readonly string[]
}
/** The real helper, given these chunks as they are, and once it has opened `whenOpen`; then, once it has answered the request `until` (default: at once), the end of input. */
async function talk(chunks: readonly (string | Uint8Array)[], { until, whenOpen = [], within = 15_000 }: { readonly until?: number; readonly whenOpen?: readonly string[]; readonly within?: number } = {}): Promise<Talk> {
  const [command = '', ...words] = lab.enter('router')
  const child: ChildProcess = spawn(command, [...words, process.execPath, join(programs.folder, 'helper.mjs')], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SUDO_UID: String(person.uid) },
  })
  let said = ''
  let open = false
  child.stdin?.on('error', () => undefined)
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text
    if (!open && said.includes('{"id":2,"ok":true')) {
      open = true
      for (const chunk of whenOpen) child.stdin?.write(chunk)
    }
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
const line = (value: unknown): string => `${JSON.stringify(value)}\n`
const valid = (backend: Backend, wish: Partial<PlanWish> = {}): { id: number; type: string; plan: object; capture: object } => ({ id: 2, type: 'open', ...openArguments(makeSession(programs, 'fuzz'), backend, wish) })
const runs = (count: number) => ({ numRuns: count * times, interruptAfterTimeLimit: 25_000 * times, seed })

/** A plan with something in every field. */
const full: PlanWish = {
  tcp: '8080,9000-9010', udp: '53', refuse: '443', keepPort: true, send: ['8081=socks5:127.0.0.1:1080', '8082=proxy2:/run/proxy.sock', '8083=tproxy:3129'],
  interfaces: ['cl0'], sources: ['198.51.100.0/24'], excludeSources: ['198.51.100.9/32'], servers: ['203.0.113.0/24'], users: [1000], groups: [100], cgroups: ['user.slice'], exclude: ['203.0.113.9/32'],
}
/** One of each request that says more than its name. */
const requests = (backend: Backend): Record<string, object> => {
  const { plan, digest } = planFor({ ...full, backend })
  return {
    hello: { protocol: 1 },
    open: { plan, digest, capture: { folder: makeSession(programs, 'full'), payload: true, maxBytesPerFlow: 1, maxBytes: 1, ring: true, segmentBytes: 1 << 20 }, threads: 1, maxFlows: 64 },
    change: { plan, digest },
    preview: { plan },
    scope: { pid: 4_000_000 },
  }
}

/** Every line the helper prints is one of its own kinds, whatever it was told. */
function expectProtocol({ code, lines }: Talk): void {
  expect([0, 1]).toContain(code)
  for (const line of lines) {
    const said = JSON.parse(line) as { id?: unknown; ok?: unknown; event?: unknown }
    expect(typeof said.event === 'string' || (typeof said.id === 'number' && typeof said.ok === 'boolean')).toBe(true)
  }
}
test('random bytes, JSON that is no request, wrong order: no tool is given anything', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(rubbish, { minLength: 1, maxLength: 12 }), fc.boolean(), async (chunks, greeted) => {
      expectProtocol(await talk(greeted ? [hello, ...chunks] : chunks))
    }),
    runs(40),
  )
  expect(tools.done()).toEqual([])
  await expectClean(lab, before)
}, timeLimit)

test('a valid request cut anywhere, or with one byte turned: refused, or the very same plan', async () => {
  const chunks = backends.map((backend) => line(valid(backend)))
  const chunk = fc.constantFrom(...chunks).chain((text) => fc.oneof(
    fc.nat(text.length - 2).map((at) => text.slice(0, at)),
    fc.tuple(fc.nat(text.length - 2), fc.integer({ min: 1, max: 126 })).map(([at, code]) => `${text.slice(0, at)}${String.fromCharCode(code)}${text.slice(at + 1)}`),
  ))
  await fc.assert(
    fc.asyncProperty(chunk, async (text) => {
      const { lines, ...rest } = await talk([hello, text])
      expectProtocol({ lines, ...rest })
      // A byte that changes what is asked for changes the rules, and they are no longer those of the digest.
      if (lines.some((each) => each.startsWith('{"id":2,"ok":true'))) expect(JSON.parse(text)).toMatchObject({ type: 'open' })
    }),
    runs(30),
  )
  tools.expectCompiled()
  await expectClean(lab, before)
}, timeLimit)

test('the samples have every request, and every field of a plan', () => {
  const saying = helperRequestShape.options.filter(({ entries }) => Object.keys(entries).length > 2)
  const samples = requests('nft')
  expect(Object.keys(samples).sort()).toEqual(saying.map(({ entries }) => entries.type.literal).sort())
  for (const { entries } of saying) expect(Object.keys(samples[entries.type.literal] ?? {}).sort()).toEqual(Object.keys(entries).filter((name) => name !== 'id' && name !== 'type').sort())
  expect(Object.keys((samples['open'] as { plan: object }).plan).sort()).toEqual(Object.keys(planShape.entries).sort())
  // Nothing in them is empty.
  for (const sample of Object.values(samples)) spoil(asJson(sample), 1, seed)
})

describe.each(backends)('%s', (backend) => {
  test('every field of every request spoilt: refused, and no tool is given anything', async () => {
    for (const [type, sample] of Object.entries(requests(backend))) {
      const spoilt = spoil({ ...(asJson(sample) as object), type, id: 0 }, times, seed)
      const { lines, ...rest } = await talk([...(type === 'hello' ? [] : [hello]), ...spoilt.map((request, index) => line({ ...(request as object), id: index + 10 }))], { until: spoilt.length + 9, within: 60_000 * times })
      expectProtocol({ lines, ...rest })
      for (const [index, request] of spoilt.entries()) {
        const answer = lines.find((each) => each.startsWith(`{"id":${String(index + 10)},`))
        // A preview is for any plan that means something.
        if (type !== 'preview') expect(answer, JSON.stringify(request)).toContain('"ok":false')
      }
    }
    expect(tools.done()).toEqual([])
    await expectClean(lab, before)
  }, timeLimit)

  test('an open gate, told to change by every spoilt plan, keeps its rules', async () => {
    const { plan, digest } = planFor({ ...full, backend })
    const spoilt = spoil({ ...(asJson({ plan, digest }) as object), type: 'change', id: 0 }, times, seed)
    const talked = await talk([hello, line(valid(backend))], { whenOpen: [...spoilt.map((request, index) => line({ ...(request as object), id: index + 10 })), line({ id: 5, type: 'drain' })], until: 5, within: 60_000 * times })
    expectProtocol(talked)
    const answers = talked.lines.filter((each) => /^\{"id":\d{2,},/.test(each))
    expect(answers.length).toBe(spoilt.length)
    expect(answers.filter((each) => !each.includes('"ok":false'))).toEqual([])
    tools.expectCompiled()
    await expectClean(lab, before)
  }, timeLimit)

  test('replayed and doubled requests: one gate, and it goes with the input', async () => {
    const open = line(valid(backend))
    const { code, lines } = await talk([hello, open, open, open, '{"id":9,"type":"drain"}\n', hello, open, '{"id":10,"type":"hello","protocol":1}\n'], { until: 9 })
    expectProtocol({ code, lines })
    expect(lines.filter((each) => each.startsWith('{"id":2,"ok":true')).length).toBeLessThanOrEqual(1)
    tools.expectCompiled()
    await expectClean(lab, before)
  }, 60_000)

  test('a huge plan is taken or refused whole', async () => {
    const ports = Array.from({ length: 4096 }, (_, index) => ({ from: index * 15 + 1, to: index * 15 + 2 }))
    const exclude = Array.from({ length: 4096 }, (_, index) => `10.${String(index >> 8)}.${String(index & 255)}.0/24`)
    const request = valid(backend, { tcp: ports.map(({ from, to }) => `${String(from)}-${String(to)}`).join(','), exclude })
    const taken = await talk([hello, line(request)], { until: 2, within: 60_000 })
    expectProtocol(taken)
    expect(taken.lines.find((each) => each.startsWith('{"id":2,'))).toContain('"ok":true')
    // The end of input comes while it opens: given up, and everything back.
    expectProtocol(await talk([hello, line(request)]))
    const tooMany = { ...request, plan: { ...request.plan, tcp: [...ports, ...ports] } }
    expect((await talk([hello, line(tooMany)])).lines.some((each) => each.startsWith('{"id":2,"ok":false'))).toBe(true)
    tools.expectCompiled()
    await expectClean(lab, before)
  }, timeLimit)
})

test('a line too long ends the conversation', async () => {
  expect((await talk([hello, `{"id":2,"type":"open","plan":"${'x'.repeat(helperLineLimit)}`])).code).toBe(1)
  expect(tools.done()).toEqual([])
  await expectClean(lab, before)
})

test('hostile capture folders are the relay\'s to refuse, with the person\'s rights', async () => {
  for (const folder of ['/etc', '/root', '/proc/self', 'relative', '/../../etc', '/dev/null', '/run/sluice', `/${'x'.repeat(4000)}`, '/a\nb', '/a\0b']) {
    const request = valid('nft')
    const { lines } = await talk([hello, line({ ...request, capture: { ...request.capture, folder } })], { until: 2 })
    expect(lines.some((each) => each.startsWith('{"id":2,"ok":false')), folder).toBe(true)
  }
  await expectClean(lab, before)
}, timeLimit)
