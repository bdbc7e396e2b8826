import { timeLimits } from '#core/plan/timeLimits.ts'
import type { MenuEntry } from '#ui/components/shared/menu.svelte.ts'
import type { AppState } from '#ui/state/app.svelte.ts'

/** When the open gate closes by itself. */
export function gateLimitMenu(app: AppState): MenuEntry[] {
  const { gate } = app
  const limit = (seconds: number | null) => () => void app.notices.attempt(() => gate.closeAfter(seconds))
  return [
    ...timeLimits.map(({ title, seconds }) => ({ label: `Close in ${title}`, run: limit(seconds) })),
    { separator: true },
    { label: 'No time limit', checked: gate.state.ends?.gate === undefined, run: limit(null) },
  ]
}

/** For how long ports are added to the open gate. */
export function portLimitMenu(app: AppState): MenuEntry[] {
  return timeLimits.map(({ title, seconds }) => ({ label: `For ${title}`, run: () => void app.applyPortsFor(seconds) }))
}
