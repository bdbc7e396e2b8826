import { ask } from './doctorFacts.ts'

/** As `ip -j -N rule show` prints it. */
export interface IpRule {
  readonly priority?: number
  readonly fwmark?: string
  readonly fwmask?: string
  readonly iif?: string
  readonly table?: string
  readonly protocol?: string
}
export interface ListedRule {
  readonly family: 'IPv4' | 'IPv6'
  readonly rule: IpRule
}
export interface ListedRoute {
  readonly family: 'IPv4' | 'IPv6'
  readonly table: number
  readonly protocol: string
}
/** What this network namespace has of ip rules, and of routes in the tables that were asked for. */
export interface Routing {
  readonly rules: readonly ListedRule[]
  readonly routes: readonly ListedRoute[]
}

/** One process a family. A family the kernel does not have has nothing. */
export async function readRouting(tables: readonly number[]): Promise<Routing> {
  const families = await Promise.all((['IPv4', 'IPv6'] as const).map(async (family) => {
    const flag = family === 'IPv4' ? '-4' : '-6'
    const lines = ['rule show', ...tables.map((table) => `route show table ${String(table)}`)]
    // A table that nobody has used yet is an error, hence -force and what was printed all the same.
    const answers = listsIn(await ask('ip', ['-j', '-N', flag, '-force', '-batch', '-'], { input: `${lines.join('\n')}\n`, anyway: true }))
    // Not every version prints an empty list for such a table.
    const routes = answers.length === lines.length ? answers.slice(1) : await Promise.all(tables.map(async (table) => listsIn(await ask('ip', ['-j', '-N', flag, 'route', 'show', 'table', String(table)]))[0] ?? []))
    return {
      rules: ((answers[0] ?? []) as readonly IpRule[]).map((rule) => ({ family, rule })),
      routes: routes.flatMap((listed, index) => (listed as readonly { protocol?: string }[]).map(({ protocol }) => ({ family, table: tables[index] ?? 0, protocol: protocol ?? '' }))),
    }
  }))
  return { rules: families.flatMap(({ rules }) => rules), routes: families.flatMap(({ routes }) => routes) }
}

function listsIn(said: string | undefined): readonly (readonly unknown[])[] {
  return (said ?? '').split('\n').flatMap((line) => {
    try {
      const parsed: unknown = JSON.parse(line)
      return Array.isArray(parsed) ? [parsed] : []
    } catch {
      return []
    }
  })
}
