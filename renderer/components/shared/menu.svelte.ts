/** An entry of a menu: something to do, a heading of its own, or a line between. `checked` makes it a check box. */
export interface MenuEntry {
  readonly label?: string
  readonly hint?: string
  readonly checked?: boolean
  readonly disabled?: boolean
  readonly separator?: boolean
  readonly heading?: boolean
  readonly run?: () => void
}
export interface OpenMenu {
  readonly x: number
  readonly y: number
  readonly label: string
  readonly entries: readonly MenuEntry[]
  /** What gets the keyboard back. */
  readonly from: HTMLElement | null
}

/** The one menu that can be open. */
export const menu = $state<{ open: OpenMenu | null }>({ open: null })

/** Opens a menu under a button. */
export function openMenu(button: HTMLElement, entries: readonly MenuEntry[], label: string): void {
  const { left, bottom } = button.getBoundingClientRect()
  menu.open = { x: left, y: bottom + 4, label, entries, from: button }
}
/** Opens a menu at a place: the pointer's, or beneath what has the keyboard. */
export function openMenuAt(x: number, y: number, entries: readonly MenuEntry[], label: string, from: HTMLElement | null): void {
  menu.open = { x, y, label, entries, from }
}
export function closeMenu(): void {
  const from = menu.open?.from ?? null
  menu.open = null
  from?.focus()
}
