import { createHash } from 'node:crypto'

import { canonicalRules } from '#core/rules/canonicalRules.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'

/** SHA-256 in hexadecimal of the canonical rules: what a person was shown and what the helper applies must agree in it. */
export function digestRules(ruleSet: RuleSet): string {
  return createHash('sha256').update(canonicalRules(ruleSet)).digest('hex')
}
