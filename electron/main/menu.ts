import { Menu, type MenuItemConstructorOptions } from 'electron'

import type { BridgeEvents, GateState, Settings } from '#core/contract/bridge.ts'

export interface MenuActions {
  toggle(): void
  closeGate(): void
  resumeGate(): void
  openSession(): void
  showRecording(): void
  showFolder(): void
  navigate(place: BridgeEvents['navigate']): void
  theme(theme: Settings['theme']): void
  quit(): void
}
export interface MenuFacts {
  readonly gate: GateState
  readonly theme: Settings['theme']
  readonly hasSession: boolean
  readonly hiddenRecording: boolean
  readonly developer: boolean
}

/** The application menu. Keys as people know them from Wireshark: Ctrl+E starts and stops, Ctrl+K chooses, Ctrl+F filters. */
export function menuTemplate({ gate, theme, hasSession, hiddenRecording, developer }: MenuFacts, act: MenuActions): MenuItemConstructorOptions[] {
  const toggleLabel = { closed: 'Open Gate', opening: 'Cancel Opening', open: 'Drain and Close Gate', draining: 'Draining…', closing: 'Closing…' }[gate.phase]
  const go = (label: string, place: BridgeEvents['navigate'], accelerator?: string, enabled = true): MenuItemConstructorOptions => ({
    id: `go-${place}`,
    label,
    enabled,
    ...(accelerator === undefined ? {} : { accelerator }),
    click: () => act.navigate(place),
  })
  return [
    {
      label: '&File',
      submenu: [
        { id: 'open-session', label: 'Open Session…', accelerator: 'Ctrl+O', click: () => act.openSession() },
        { id: 'show-recording', label: 'Show Session of the Open Gate', enabled: hiddenRecording, click: () => act.showRecording() },
        go('Export…', 'export', 'Ctrl+Shift+E', hasSession),
        { id: 'show-folder', label: 'Show in File Manager', enabled: hasSession, click: () => act.showFolder() },
        { type: 'separator' },
        { role: 'close', accelerator: 'Ctrl+W' },
        { id: 'quit', label: 'Quit', accelerator: 'Ctrl+Q', click: () => act.quit() },
      ],
    },
    {
      label: '&Edit',
      submenu: [
        { role: 'undo' },
        { role: 'redo' },
        { type: 'separator' },
        { role: 'cut' },
        { role: 'copy' },
        { role: 'paste' },
        { role: 'selectAll' },
        { type: 'separator' },
        go('Filter…', 'filter', 'Ctrl+F'),
      ],
    },
    {
      label: '&Gate',
      submenu: [
        { id: 'toggle', label: toggleLabel, accelerator: 'Ctrl+E', enabled: gate.phase !== 'draining' && gate.phase !== 'closing', click: () => act.toggle() },
        {
          id: 'close-gate',
          label: gate.active > 0 ? `Close at Once (cuts ${gate.active})` : 'Close at Once',
          accelerator: 'Ctrl+Shift+K',
          enabled: gate.phase === 'open' || gate.phase === 'draining',
          click: () => act.closeGate(),
        },
        { id: 'resume-gate', label: 'Take Flows Again', enabled: gate.phase === 'draining', click: () => act.resumeGate() },
        { type: 'separator' },
        go('Choose Ports…', 'ports', 'Ctrl+K'),
        go('What Will Be Done…', 'preview'),
      ],
    },
    {
      label: '&View',
      submenu: [
        go('Flows', 'flows', 'Ctrl+L'),
        { type: 'separator' },
        {
          label: 'Theme',
          submenu: (['system', 'light', 'dark'] as const).map((value) => ({
            id: `theme-${value}`,
            label: { system: 'As the System', light: 'Light', dark: 'Dark' }[value],
            type: 'radio',
            checked: theme === value,
            click: () => act.theme(value),
          })),
        },
        { type: 'separator' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { role: 'resetZoom' },
        { role: 'togglefullscreen' },
        ...(developer ? [{ role: 'toggleDevTools' } satisfies MenuItemConstructorOptions] : []),
      ],
    },
    {
      label: '&Help',
      submenu: [go('What This Machine Can Do', 'doctor'), go('About and Keys', 'about', 'F1')],
    },
  ]
}

/** Sets the application menu again when something it shows has changed. */
export function createMenu(act: MenuActions): (facts: MenuFacts) => void {
  let shown = ''
  return (facts) => {
    const { phase, active } = facts.gate
    const key = JSON.stringify([phase, phase === 'open' || phase === 'draining' ? active : 0, { ...facts, gate: undefined }])
    if (key === shown) return
    shown = key
    Menu.setApplicationMenu(Menu.buildFromTemplate(menuTemplate(facts, act)))
  }
}
