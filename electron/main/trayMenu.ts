import type { GateState, Settings } from '#core/contract/bridge.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { timeLimits } from '#core/plan/timeLimits.ts'
import { spacedPorts } from '#core/plan/spacedPorts.ts'

export type TrayIcon = 'closed' | 'open' | 'draining' | 'trouble'
export type TrayAction =
  | { readonly do: 'toggle' | 'close' | 'resume' | 'show' | 'export' | 'quit' }
  | { readonly do: 'ports'; readonly ports: string }
  | { readonly do: 'limit'; readonly seconds: number | null }
export interface TrayItem {
  readonly label: string
  readonly type?: 'separator' | 'radio'
  readonly enabled?: boolean
  readonly checked?: boolean
  readonly action?: TrayAction
  readonly items?: readonly TrayItem[]
}
export interface TrayFace {
  readonly icon: TrayIcon
  readonly tooltip: string
  readonly items: readonly TrayItem[]
}

const separator: TrayItem = { label: '', type: 'separator' }
const flowsText = (count: number): string => `${count} ${count === 1 ? 'flow' : 'flows'}`
/** Ports that are refused or go to a proxy need not stand among the chosen ones. */
const chosenText = ({ ports, refuse, send }: Settings['choice']): string => spacedPorts(ports) || send.map((way) => spacedPorts(way.ports)).join(', ') || (refuse === '' ? '' : `${spacedPorts(refuse)} refused`)
const planText = (plan: NonNullable<GateState['plan']>): string => formatPortWords(plan)
const short = (ports: string): string => (ports.length > 40 ? `${ports.slice(0, 39)}…` : ports)

/**
 * The tray as data. Everything on it is in the window too, as some desktops show no tray; the first entry is the toggle, because on
 * most of them any click opens the menu. `now`: milliseconds since the epoch.
 */
export function trayFace(gate: GateState, settings: Settings, hasSession: boolean, now: number): TrayFace {
  const chosen = chosenText(settings.choice)
  const ports = short(gate.plan === undefined ? chosen : planText(gate.plan))
  const [icon, tooltip, toggle] = faceOf(gate, ports, short(chosen), now)
  const cuttable = gate.phase === 'open' || gate.phase === 'draining'
  const recents = [...new Set([chosen, ...settings.recentPorts.map(spacedPorts)])].filter((entry) => entry !== '')
  return {
    icon,
    tooltip,
    items: [
      toggle,
      ...(gate.phase === 'draining' ? [{ label: 'Take flows again', action: { do: 'resume' } } satisfies TrayItem] : []),
      ...(cuttable ? [{ label: `Close at once (${flowsText(gate.active)})`, action: { do: 'close' } } satisfies TrayItem] : []),
      ...(gate.phase === 'open' ? [limitItem(gate, now)] : []),
      separator,
      {
        label: gate.phase === 'closed' ? 'Ports' : 'Ports for the next opening',
        enabled: recents.length > 0,
        items: recents.map((entry) => ({ label: short(entry), type: 'radio', checked: entry === chosen, action: { do: 'ports', ports: entry } })),
      },
      separator,
      { label: 'Show window', action: { do: 'show' } },
      { label: 'Export…', enabled: hasSession, action: { do: 'export' } },
      separator,
      { label: 'Quit', action: { do: 'quit' } },
    ],
  }
}

/** To the minute, as a tray's menu is not redrawn each second. */
function minutes(milliseconds: number): string {
  const whole = Math.ceil(milliseconds / 60_000)
  if (whole <= 1) return 'less than a minute'
  return whole < 120 ? `${whole} minutes` : `${Math.round(whole / 60)} hours`
}
function limitItem({ ends }: GateState, now: number): TrayItem {
  return {
    label: ends?.gate === undefined ? 'Close by itself' : `Closes by itself in ${minutes(ends.gate - now)}`,
    items: [
      ...timeLimits.map(({ title, seconds }): TrayItem => ({ label: `In ${title}`, action: { do: 'limit', seconds } })),
      { label: 'No time limit', enabled: ends?.gate !== undefined, action: { do: 'limit', seconds: null } },
    ],
  }
}
/** What ends next. */
function endsText({ ends }: GateState, now: number): string {
  const next = ends?.ports[0]
  if (ends?.gate !== undefined && (next === undefined || ends.gate <= next.until)) return `, closes in ${minutes(ends.gate - now)}`
  return next === undefined ? '' : `, ${next.transport} ${formatPorts(next.ports)} for ${minutes(next.until - now)} more`
}

function faceOf(gate: GateState, ports: string, chosen: string, now: number): [TrayIcon, string, TrayItem] {
  const action: TrayAction = { do: 'toggle' }
  switch (gate.phase) {
    case 'closed': {
      const item: TrayItem = chosen === '' ? { label: 'Open gate (choose ports first)', enabled: false } : { label: `Open gate on ${chosen}`, action }
      return gate.failure === undefined
        ? ['closed', 'Sluice: gate closed', item]
        : ['trouble', `Sluice: gate closed – ${gate.failure.message}`.slice(0, 200), item]
    }
    case 'opening':
      return ['draining', `Sluice: opening on ${ports}`, { label: `Opening on ${ports} – cancel`, action }]
    case 'open': {
      const trouble = gate.recording === 'stopped' || gate.warnings.length > 0
      const note = gate.recording === 'stopped' ? ' – recording stopped' : (gate.warnings.at(-1) ?? '') && ` – ${gate.warnings.at(-1) ?? ''}`
      return [
        trouble ? 'trouble' : 'open',
        `Sluice: gate open on ${ports} (${flowsText(gate.active)})${endsText(gate, now)}${note}`.slice(0, 200),
        { label: `Gate: open on ${ports} (${flowsText(gate.active)}) – drain and close`, action },
      ]
    }
    case 'draining':
      return ['draining', `Sluice: draining, ${flowsText(gate.active)} still running`, { label: `Draining on ${ports} (${flowsText(gate.active)} still running)`, enabled: false }]
    case 'closing':
      return ['draining', 'Sluice: closing', { label: 'Closing…', enabled: false }]
  }
}
