import type { FlowDetails, FlowRow } from '#core/flow/flow.ts'
import { Session } from '#session/session.ts'
import type { Lab, Place } from '#test/lab/makeLab.ts'
import { until } from '#test/lab/until.ts'

/** Until somebody on the router listens there, as `ss` writes it. */
export async function untilListening(lab: Lab, where: string): Promise<void> {
  await until(`somebody listens at ${where}`, async () => (await lab.exec('router', ['ss', '-Hltn'])).stdout, (listed) => listed.includes(` ${where} `))
}

export async function ask(lab: Lab, from: Place, address: string, port: number): Promise<Record<string, unknown>> {
  const { stdout } = await lab.exec(from, [process.execPath, 'test/lab/peer.mjs', 'ask', address, String(port)])
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}') as Record<string, unknown>
}

export async function flowsOf(session: string): Promise<FlowDetails[]> {
  return read(session, (opened) => [...opened.flows('')].map(({ id }) => opened.details(id)))
}
export async function rowsOf(session: string): Promise<FlowRow[]> {
  return read(session, (opened) => [...opened.flows('')])
}

async function read<T>(session: string, look: (opened: Session) => T): Promise<T> {
  const opened = Session.open(session, false, { changed: () => undefined })
  await opened.finish()
  const seen = look(opened)
  await opened.close()
  return seen
}
export const shape = ({ row, via }: FlowDetails): unknown => ({ scope: row.scope, state: row.state, ...(via === undefined ? {} : { via }), ...(row.process === undefined ? {} : { by: row.process.name }) })
export const sorted = (shapes: unknown[]): string[] => shapes.map((each) => JSON.stringify(each)).sort()
