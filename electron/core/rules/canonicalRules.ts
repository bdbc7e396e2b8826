import type { RuleSet } from './ruleSet.ts'

/**
 * A rule set as one stable text: equal for equal rules whatever order its keys were made in. What differs between two looks at one machine without
 * changing what the rules do stays out: the relay's port and the owner flag are no part of a RuleSet at all, the cgroup mount is left out here.
 */
export function canonicalRules(ruleSet: RuleSet): string {
  return JSON.stringify(ruleSet, (key, value: unknown) => {
    if (key === 'cgroupPrefix') return undefined
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return value
    return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
  })
}
