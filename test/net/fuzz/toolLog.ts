import { readFileSync } from 'node:fs'

import { expect } from 'vitest'

import { actionLogPath, parseActions } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'

/** The witness of what root's tools were given: the helper's own log, from now on, of one network namespace. */
export interface ToolLog {
  /** What was done so far; notes are no doing. */
  done(): Action[]
  /** Everything a tool was given bears our names and is made of the renderer's own words. */
  expectCompiled(): void
}

/** What stays on an interface has a route for each, whose name the helper has from the kernel. */
const nearRoute = String.raw`(?:route (?:(?:append|del) local fe80::/10 dev \w[\w.:@+-]*|flush exact fe80::/10) table \d+ protocol \d+)`
const allowedTool = new RegExp(String.raw`^/usr/sbin/(?:ip -[46] (?:rule|route) (?:add|del|replace|flush) [a-z0-9/ ]+|ip -6 ${nearRoute}|nft (?:-i|-f -|delete (?:table|chain) [a-z0-9 ]+(?: (?:PREROUTING|OUTPUT))?)|ip6?tables-(?:nft|legacy)-restore --noflush -w 5|ip -[46] (?:-force )?-batch -)$`, 'u')
const allowedLine = new RegExp(String.raw`^(?:(?:add|delete|flush) (?:table|set|chain|rule|element) inet sluice\b.*|[*:].*|-[ADX] (?:SLUICE_|PREROUTING -j SLUICE_|OUTPUT -j SLUICE_).*|COMMIT|(?:rule|route) (?:add|del|replace) [a-z0-9/ ]+|${nearRoute}|)$`, 'u')

export function watchTools(namespace: string): ToolLog {
  const since = new Date().toISOString()
  // Where the log was turned meanwhile, the beginning stands in the older one.
  const done = (): Action[] =>
    [`${actionLogPath}.1`, actionLogPath]
      .flatMap((path) => parseActions(readLog(path)))
      .filter((action) => action.namespace === namespace && action.time >= since && action.result !== 'note')
  return {
    done,
    expectCompiled() {
      for (const { text, input } of done()) {
        expect(text).toMatch(allowedTool)
        const lines = input?.split('\n') ?? []
        // Of a long text the log keeps the beginning, to somewhere in a line.
        for (const line of lines.at(-1)?.startsWith('… and') === true ? lines.slice(0, -2) : lines) {
          expect(line).toMatch(allowedLine)
          expect(line).not.toMatch(/[`$\\]|\b(?:include|define|accept;.*flush)\b/)
        }
      }
    },
  }
}

function readLog(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
