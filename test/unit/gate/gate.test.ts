import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import type { GateState } from '#core/contract/bridge.ts'
import { Failure } from '#core/contract/failure.ts'
import type { HelperEvent } from '#core/contract/helperProtocol.ts'
import { parsePlanEdit } from '#core/plan/editPlan.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import type { HelperConnection, HelperEnd } from '#elevate/helperConnection.ts'
import { Gate } from '#gate/gate.ts'

const plan = parsePlan(await import('#core/plan/makePlan.ts').then(({ makePlan }) => makePlan({ tcp: '80' })))
const choice = { folder: '/tmp/x.sluice', payload: true, maxBytesPerFlow: null, maxBytes: null, threads: 1 }
const opened = { backend: 'nft', relayPort: 50080, relayPid: 1, ipv6: true, redirects: false, took: 1 } as const

/** A helper whose answers are given by the test, request by request. */
class ScriptedHelper implements HelperConnection {
  readonly asked: { readonly type: string; readonly args: unknown; readonly resolve: (result: never) => void; readonly reject: (error: Failure) => void }[] = []
  readonly #heard = new Set<() => void>()
  readonly #events: ((event: HelperEvent) => void)[] = []
  readonly #ends: ((end: HelperEnd) => void)[] = []
  ended: HelperEnd | undefined
  request(type: string, args: unknown): Promise<never> {
    return new Promise((resolve, reject) => {
      if (this.ended !== undefined) { reject(new Failure('helper-died', 'the helper ended')); return }
      this.asked.push({ type, args, resolve, reject })
      for (const each of this.#heard) each()
    })
  }
  onEvent(listener: (event: HelperEvent) => void): void { this.#events.push(listener) }
  onEnd(listener: (end: HelperEnd) => void): void { this.#ends.push(listener) }
  /** The end of its input: it takes everything back and is gone. */
  end(): Promise<void> {
    this.die({ code: 0, stderr: '' })
    return Promise.resolve()
  }
  die(end: HelperEnd): void {
    if (this.ended !== undefined) return
    this.ended = end
    for (const { reject } of this.asked) reject(new Failure('helper-died', 'the helper ended', end.stderr || undefined))
    for (const listener of this.#ends) listener(end)
  }
  tell(event: HelperEvent): void { for (const listener of this.#events) listener(event) }
  /** The first of a type, or a later one. */
  async next(type: string, index = 0): Promise<ScriptedHelper['asked'][number]> {
    for (;;) {
      const found = this.asked.filter((each) => each.type === type)[index]
      if (found !== undefined) return found
      await new Promise<void>((resolve) => this.#heard.add(resolve))
    }
  }
}

function make(options: { readonly digest?: () => Promise<string>; readonly startHelper?: (options: { signal: AbortSignal }) => Promise<HelperConnection> } = {}) {
  const helpers: ScriptedHelper[] = []
  const states: GateState[] = []
  const waiting: { readonly count: number; readonly resolve: () => void }[] = []
  const gate = new Gate({
    digest: options.digest ?? (() => Promise.resolve('0'.repeat(64))),
    startHelper: options.startHelper ?? (() => {
      const helper = new ScriptedHelper()
      helpers.push(helper)
      for (const each of waiting) if (helpers.length >= each.count) each.resolve()
      return Promise.resolve(helper)
    }),
    now: () => 1234,
  })
  gate.onState((state) => void states.push(state))
  const helper = async (count = 1): Promise<ScriptedHelper> => {
    if (helpers.length < count) await new Promise<void>((resolve) => waiting.push({ count, resolve }))
    return helpers[count - 1]!
  }
  const phases = (): string[] => states.map(({ phase }) => phase).filter((phase, index, all) => phase !== all[index - 1])
  const open = async (): Promise<ScriptedHelper> => {
    const opening = gate.open(plan, choice)
    const mine = await helper(helpers.length + 1)
    ;(await mine.next('open')).resolve(opened as never)
    await opening
    return mine
  }
  return { gate, helpers, states, helper, phases, open }
}

describe('the gate', () => {
  test('opens, tells what happens, drains and closes', async () => {
    const { gate, helper, states, phases } = make()
    const opening = gate.open(plan, choice)
    const mine = await helper()
    const asked = await mine.next('open')
    expect(asked.args).toEqual({ plan, digest: '0'.repeat(64), capture: { folder: choice.folder, payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 })
    mine.tell({ event: 'step', text: 'applying rules' })
    expect(gate.state()).toMatchObject({ phase: 'opening', step: 'applying rules' })
    asked.resolve(opened as never)
    await opening
    expect(gate.state()).toEqual({ phase: 'open', plan, backend: 'nft', openedAt: 1234, active: 0, total: 0, bytes: 0, recording: 'on', warnings: [] })
    mine.tell({ event: 'step', text: 'too late to matter' })
    mine.tell({ event: 'flows', active: 2, total: 5, bytes: 77 })
    mine.tell({ event: 'recording', state: 'slow' })
    mine.tell({ event: 'warning', code: 'x', message: 'mind this' })
    mine.tell({ event: 'warning', code: 'x', message: 'and that' })
    mine.tell({ event: 'warning', code: 'x', message: 'mind this' })
    expect(gate.state()).toMatchObject({ phase: 'open', active: 2, total: 5, bytes: 77, recording: 'slow', warnings: ['and that', 'mind this'] })
    expect(gate.state().step).toBeUndefined()
    const draining = gate.drain()
    ;(await mine.next('drain')).resolve(null as never)
    expect(gate.state().phase).toBe('draining')
    mine.tell({ event: 'closed' })
    await draining
    expect(mine.ended).toBeDefined()
    expect(gate.state()).toMatchObject({ phase: 'closed', active: 0, total: 5 })
    expect(gate.state().failure).toBeUndefined()
    expect(phases()).toEqual(['opening', 'open', 'draining', 'closed'])
    const count = states.length
    mine.tell({ event: 'flows', active: 9, total: 9, bytes: 9 })
    expect(states.length).toBe(count)
  })

  test('draining says since when and of how many, and resuming forgets it', async () => {
    const { gate, open } = make()
    const mine = await open()
    mine.tell({ event: 'flows', active: 2, total: 5, bytes: 77 })
    void gate.drain()
    ;(await mine.next('drain')).resolve(null as never)
    expect(gate.state().draining).toEqual({ since: 1234, of: 2 })
    // One that was let in just before is counted a moment later.
    mine.tell({ event: 'flows', active: 3, total: 6, bytes: 77 })
    mine.tell({ event: 'flows', active: 1, total: 6, bytes: 77 })
    expect(gate.state()).toMatchObject({ active: 1, draining: { since: 1234, of: 3 } })
    const resumed = gate.resume()
    ;(await mine.next('resume')).resolve(null as never)
    await resumed
    expect(gate.state().phase).toBe('open')
    expect(gate.state().draining).toBeUndefined()
  })

  test('in another network namespace the rules are compiled from what its helper sees there, for opening and for each change', async () => {
    const order: unknown[] = []
    const mine = new ScriptedHelper()
    const gate = new Gate({
      digest: (_plan, facts) => {
        order.push(['digest', facts])
        return Promise.resolve(String(order.length).repeat(64))
      },
      startHelper: ({ netns }) => {
        order.push(['start', netns])
        return Promise.resolve(mine)
      },
    })
    const opening = gate.open(plan, { ...choice, netns: 'blue' })
    const facts = await mine.next('facts')
    expect(order).toEqual([['start', 'blue']])
    facts.resolve({ ipv6: false, interfaces: ['up0'] } as never)
    const asked = await mine.next('open')
    expect(asked.args).toMatchObject({ digest: '2'.repeat(64), capture: { folder: choice.folder } })
    expect(asked.args).not.toHaveProperty('capture.netns')
    asked.resolve(opened as never)
    await opening
    mine.asked.length = 0
    const changing = gate.change(plan)
    ;(await mine.next('facts')).resolve({ ipv6: true, interfaces: ['br0'] } as never)
    const change = await mine.next('change')
    expect(change.args).toMatchObject({ digest: '3'.repeat(64) })
    change.resolve({ took: 1 } as never)
    await changing
    // Tools and kernel as they were, interfaces as they are.
    expect(order.slice(1)).toEqual([['digest', { ipv6: false, interfaces: ['up0'] }], ['digest', { ipv6: false, interfaces: ['br0'] }]])
  })

  test('a container made anew: its cgroups take the place of the old ones, unless somebody has chosen otherwise', async () => {
    const { gate, open } = make()
    const mine = await open()
    const chosen = parsePlan({ ...plan, scope: ['local'], cgroups: ['docker/a', 'system.slice/other.service'] })
    const choosing = gate.change(chosen)
    ;(await mine.next('change')).resolve({ took: 1 } as never)
    await choosing
    const moving = gate.moveCgroups('web', ['docker/a'], ['docker/b'])
    const asked = await mine.next('change', 1)
    expect(asked.args).toMatchObject({ plan: { cgroups: ['docker/b', 'system.slice/other.service'], tcp: plan.tcp } })
    asked.resolve({ took: 1 } as never)
    await moving
    expect(gate.state().plan?.cgroups).toEqual(['docker/b', 'system.slice/other.service'])
    expect(gate.state().warnings).toEqual(['Container web was made anew and is another one: it is taken from now on, what it opened before that went direct.'])
    await gate.moveCgroups('web', ['docker/a'], ['docker/c'])
    expect(mine.asked.filter(({ type }) => type === 'change').length).toBe(2)
    const refused = gate.moveCgroups('web', ['docker/b'], ['docker/c'])
    ;(await mine.next('change', 2)).reject(new Failure('unknown-cgroup', 'gone'))
    await expect(refused).rejects.toMatchObject({ code: 'unknown-cgroup' })
    expect(gate.state().plan?.cgroups).toEqual(['docker/b', 'system.slice/other.service'])
  })

  test('opens again after it was closed, with a new helper and no memory of the old', async () => {
    const { gate, open, helpers } = make()
    const first = await open()
    first.tell({ event: 'flows', active: 1, total: 1, bytes: 1 })
    const closing = gate.close()
    ;(await first.next('close')).resolve(null as never)
    first.tell({ event: 'closed' })
    await closing
    await open()
    expect(helpers.length).toBe(2)
    expect(gate.state()).toMatchObject({ phase: 'open', total: 0, bytes: 0 })
    // What the first still says is nobody's.
    first.tell({ event: 'flows', active: 9, total: 9, bytes: 9 })
    expect(gate.state().total).toBe(0)
  })

  test('takes no second opening while one is open or under way', async () => {
    const { gate, helper } = make()
    const opening = gate.open(plan, choice)
    await expect(gate.open(plan, choice)).rejects.toMatchObject({ code: 'already-open' })
    ;(await (await helper()).next('open')).resolve(opened as never)
    await opening
    await expect(gate.open(plan, choice)).rejects.toMatchObject({ code: 'already-open' })
    expect(gate.state().phase).toBe('open')
  })

  test.each([
    ['the digest', { digest: () => Promise.reject(new Failure('backend-missing', 'no nft')) }, 'backend-missing'],
    ['the elevation', { startHelper: () => Promise.reject(new Failure('elevation-refused', 'dismissed')) }, 'elevation-refused'],
  ] as const)('says why when %s fails, and is closed', async (_name, options, code) => {
    const { gate, phases } = make(options)
    await expect(gate.open(plan, choice)).rejects.toMatchObject({ code })
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code } })
    expect(phases()).toEqual(['opening', 'closed'])
  })

  test('says why when the helper refuses; the helper is ended', async () => {
    const { gate, helper } = make()
    const opening = gate.open(plan, choice)
    const mine = await helper()
    ;(await mine.next('open')).reject(new Failure('rules-failed', 'nft refused the rules', 'detail'))
    await expect(opening).rejects.toMatchObject({ code: 'rules-failed' })
    expect(mine.ended).toBeDefined()
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'rules-failed', detail: 'detail' } })
  })

  test('a helper that dies while opening', async () => {
    const { gate, helper } = make()
    const opening = gate.open(plan, choice)
    const mine = await helper()
    await mine.next('open')
    mine.die({ code: 1, stderr: 'oh' })
    await expect(opening).rejects.toMatchObject({ code: 'helper-died' })
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'helper-died' } })
  })

  test('a helper that dies while open, and while draining', async () => {
    const { gate, open } = make()
    const first = await open()
    first.die({ code: undefined, stderr: 'last words' })
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'helper-died', detail: 'last words' } })
    const second = await open()
    expect(gate.state().failure).toBeUndefined()
    const draining = gate.drain()
    second.die({ code: 137, stderr: '' })
    await draining
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'helper-died' } })
  })

  test('closed by the helper itself: the failure it names', async () => {
    const { gate, open } = make()
    const mine = await open()
    const closed = new Promise<void>((resolve) => gate.onState(({ phase }) => { if (phase === 'closed') resolve() }))
    mine.tell({ event: 'closed', failure: { code: 'relay-died', message: 'the relay ended' } })
    await closed
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'relay-died', message: 'the relay ended' } })
  })

  test.each(['close', 'drain'] as const)('%s while opening gives up, whatever the helper answers', async (way) => {
    const { gate, helper } = make()
    const opening = gate.open(plan, choice)
    const refused = expect(opening).rejects.toMatchObject({ code: 'cancelled' })
    const mine = await helper()
    const asked = await mine.next('open')
    const closing = gate[way]()
    await mine.next('close')
    asked.resolve(opened as never) // it had opened already when the word to close arrived
    await refused
    await closing
    expect(mine.ended).toBeDefined()
    expect(gate.state()).toMatchObject({ phase: 'closed', failure: { code: 'cancelled' } })
  })

  test('close before the helper is there: none is kept', async () => {
    let give: ((helper: ScriptedHelper) => void) | undefined
    let asked: (() => void) | undefined
    const started = new Promise<void>((resolve) => (asked = resolve))
    const { gate } = make({ startHelper: () => { asked?.(); return new Promise((resolve) => (give = resolve)) } })
    const refused = expect(gate.open(plan, choice)).rejects.toMatchObject({ code: 'cancelled' })
    await started
    const closing = gate.close()
    const late = new ScriptedHelper()
    give?.(late)
    await refused
    await closing
    expect(late.asked).toEqual([])
    expect(late.ended).toBeDefined()
  })

  test('close while draining does not wait for the flows', async () => {
    const { gate, open, phases } = make()
    const mine = await open()
    const draining = gate.drain()
    ;(await mine.next('drain')).resolve(null as never)
    const closing = gate.close()
    ;(await mine.next('close')).resolve(null as never)
    mine.tell({ event: 'closed' })
    await Promise.all([draining, closing])
    expect(phases()).toEqual(['opening', 'open', 'draining', 'closing', 'closed'])
  })

  test('closing what is closed is nothing; put away it opens no more', async () => {
    const { gate, open, states } = make()
    await gate.close()
    await gate.drain()
    expect(states).toEqual([])
    const mine = await open()
    const away = gate.dispose()
    ;(await mine.next('close')).resolve(null as never)
    mine.tell({ event: 'closed' })
    await away
    await expect(gate.open(plan, choice)).rejects.toMatchObject({ code: 'not-open' })
  })

  test('keeps the newest twenty warnings', async () => {
    const { gate, open } = make()
    const mine = await open()
    for (let index = 0; index < 50; index++) mine.tell({ event: 'warning', code: 'x', message: `w${index}` })
    expect(gate.state().warnings).toEqual(Array.from({ length: 20 }, (_, index) => `w${index + 30}`))
  })
})

describe('changes while open', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())
  const add = (...ports: number[]) => parsePlanEdit({ tcp: { add: ports.map((port) => ({ from: port, to: port })) } })
  const remove = (...ports: number[]) => parsePlanEdit({ tcp: { remove: ports.map((port) => ({ from: port, to: port })) } })
  const ports = (gate: Gate): string => formatPlanPorts(gate.state().plan!)
  const agree = async (helper: ScriptedHelper, index: number): Promise<void> => (await helper.next('change', index)).resolve({ took: 1 } as never)

  test('each starts from the plan the one before has left', async () => {
    const { gate, open } = make()
    const mine = await open()
    const edits = [gate.edit(add(443)), gate.edit(add(8080)), gate.edit(remove(80)), gate.edit(add(8080))]
    for (const index of [0, 1, 2]) await agree(mine, index)
    await Promise.all(edits)
    expect(ports(gate)).toBe('tcp 443,8080')
    // What changes nothing asks nobody.
    expect(mine.asked.filter(({ type }) => type === 'change')).toHaveLength(3)
  })

  test('a refusal leaves everything as it was, the next is judged anew', async () => {
    const { gate, open } = make()
    const mine = await open()
    const edit = gate.edit(add(443), { duration: 1000 })
    ;(await mine.next('change')).reject(new Failure('rules-failed', 'no'))
    await expect(edit).rejects.toMatchObject({ code: 'rules-failed' })
    expect(gate.state()).toMatchObject({ phase: 'open', plan })
    expect(gate.state().ends).toBeUndefined()
    await expect(gate.edit(remove(80))).rejects.toMatchObject({ code: 'nothing-to-intercept' })
    const next = gate.edit(add(444))
    await agree(mine, 1)
    expect(await next).toMatchObject({ ports: { tcp: { added: [{ from: 444, to: 444 }], removed: [] } } })
  })

  test('ports go when their time is up; more time may be given', async () => {
    const { gate, open } = make()
    const mine = await open()
    const edits = [gate.edit(add(80, 443), { duration: 1000 }), gate.edit(add(444), { duration: 3000 })]
    await agree(mine, 0)
    await agree(mine, 1)
    await Promise.all(edits)
    expect(gate.state().ends).toEqual({ ports: [{ transport: 'tcp', ports: [{ from: 443, to: 443 }], until: 2234 }, { transport: 'tcp', ports: [{ from: 444, to: 444 }], until: 4234 }] })
    await gate.edit(add(443), { duration: 2000 })
    await vi.advanceTimersByTimeAsync(1999)
    expect(mine.asked.filter(({ type }) => type === 'change')).toHaveLength(2)
    await vi.advanceTimersByTimeAsync(1)
    await agree(mine, 2)
    await vi.advanceTimersByTimeAsync(0)
    expect(ports(gate)).toBe('tcp 80,444')
    await gate.edit(add(444))
    expect(gate.state().ends).toBeUndefined()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(ports(gate)).toBe('tcp 80,444')
  })

  test('a refusal to let go is told, and tried again', async () => {
    const { gate, open } = make()
    const mine = await open()
    const edit = gate.edit(add(443), { duration: 1000 })
    await agree(mine, 0)
    await edit
    await vi.advanceTimersByTimeAsync(1000)
    ;(await mine.next('change', 1)).reject(new Failure('rules-failed', 'busy'))
    await vi.advanceTimersByTimeAsync(0)
    expect(gate.state().warnings).toEqual([expect.stringContaining('busy')])
    await vi.advanceTimersByTimeAsync(5000)
    await agree(mine, 2)
    await vi.advanceTimersByTimeAsync(0)
    expect(ports(gate)).toBe('tcp 80')
  })

  test('the last ports to go drain the gate', async () => {
    const { gate, open } = make()
    const mine = await open()
    const edits = [gate.edit(add(443), { duration: 1000 }), gate.edit(remove(80))]
    await agree(mine, 0)
    await agree(mine, 1)
    await Promise.all(edits)
    await vi.advanceTimersByTimeAsync(1000)
    ;(await mine.next('drain')).resolve(null as never)
    expect(gate.state().phase).toBe('draining')
    mine.tell({ event: 'closed' })
    await vi.advanceTimersByTimeAsync(0)
    expect(gate.state()).toMatchObject({ phase: 'closed' })
    expect(gate.state().ends).toBeUndefined()
  })

  test('the whole gate drains when its time is up; what falls due while draining goes on resuming', async () => {
    const { gate, open } = make()
    expect(() => gate.closeAfter(1)).toThrow(expect.objectContaining({ code: 'not-open' }))
    const mine = await open()
    const edit = gate.edit(add(443), { duration: 2000 })
    await agree(mine, 0)
    await edit
    gate.closeAfter(5000)
    gate.closeAfter(1000)
    expect(gate.state().ends).toMatchObject({ gate: 2234 })
    await vi.advanceTimersByTimeAsync(1000)
    ;(await mine.next('drain')).resolve(null as never)
    expect(gate.state().phase).toBe('draining')
    await expect(gate.edit(add(5))).rejects.toMatchObject({ code: 'not-open', message: 'the gate is draining' })
    await vi.advanceTimersByTimeAsync(5000)
    const resuming = gate.resume()
    ;(await mine.next('resume')).resolve(null as never)
    await resuming
    await agree(mine, 1)
    await vi.advanceTimersByTimeAsync(0)
    expect(gate.state().phase).toBe('open')
    expect(ports(gate)).toBe('tcp 80')
    expect(gate.state().ends).toBeUndefined()
  })
})
