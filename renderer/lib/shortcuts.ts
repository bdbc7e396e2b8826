import type { AppState } from '#ui/state/app.svelte.ts'

/** For the help dialog; what they do is `handleShortcut`'s and the list's. */
export const shortcuts: readonly (readonly [keys: string, what: string])[] = [
  ['Ctrl+E', 'Open the gate; drain and close it; cancel an opening'],
  ['Ctrl+F', 'Go to the filter'],
  ['Ctrl+K', 'Choose ports'],
  ['Ctrl+O', 'Open a session from disk'],
  ['Ctrl+Shift+E', 'Export'],
  ['Ctrl+1, 2, 3', 'Flows, Ports, Doctor'],
  ['↑ ↓ or k j', 'Previous or next flow'],
  ['Home End PgUp PgDn', 'First, last, a page up or down'],
  ['Enter', 'Go to the details of the selected flow'],
  ['Esc', 'Back to the list; clears the filter'],
  ['Shift+F10', 'Menu of the selected flow or of a column'],
  ['Shift+← →', 'On a column’s title: narrower, wider'],
  ['Ctrl+C', 'Copy a summary of the selected flow'],
  ['Ctrl+Shift+L', 'Leave the selected flow’s server alone'],
  ['Ctrl+Enter', 'Put changed choices in force while the gate is open'],
  ['Ctrl+M', 'Mark the selected flow'],
  ['Ctrl+Shift+N, Ctrl+Shift+B', 'Next, previous marked flow'],
  ['F1', 'These keys'],
]

/** Keys that work anywhere in the window. A key the page takes is not passed on to the application menu. */
export function handleShortcut(app: AppState, event: KeyboardEvent): void {
  const act = actionFor(app, event)
  if (act === undefined) return
  event.preventDefault()
  act()
}

function actionFor(app: AppState, { key, ctrlKey, metaKey, shiftKey, altKey }: KeyboardEvent): (() => void) | undefined {
  if (key === 'F1') return () => (app.view.dialog = 'keys')
  if (!(ctrlKey || metaKey) || altKey) return undefined
  switch (key.toLowerCase()) {
    case 'e':
      return shiftKey ? () => app.openExport() : () => void app.toggleGate()
    case 'f':
      return shiftKey ? undefined : () => app.view.focusFilter()
    case 'k':
      return () => app.view.focusPorts()
    case 'o':
      return () => void app.openSession()
    case 'enter':
      return app.ports.isPending(app.gate.state) ? () => void app.applyChoice() : undefined
    case '1':
      return () => app.view.go('flows')
    case '2':
      return () => app.view.go('ports')
    case '3':
      return () => app.view.go('doctor')
    default:
      return undefined
  }
}
