import { readRemembered, remember } from './remembered.ts'

export type Place = 'ports' | 'flows' | 'doctor'
export type DialogName = 'export' | 'settings' | 'about' | 'keys'

interface Layout {
  readonly side: 'right' | 'below'
  /** Share of the room that the details take, 0.2 to 0.8. */
  readonly share: number
}
function isLayout(value: unknown): value is Layout {
  return typeof value === 'object' && value !== null && 'side' in value && (value.side === 'right' || value.side === 'below') && 'share' in value && typeof value.share === 'number'
}

/** What stands where in the window. */
export class ViewState {
  place = $state<Place>('ports')
  dialog = $state<DialogName | null>(null)
  showPreview = $state(true)
  layout = $state.raw<Layout>(readRemembered('layout', isLayout) ?? { side: 'below', share: 0.46 })
  /** Rises when the filter box, or the port box, should have the keyboard. */
  filterCalls = $state(0)
  portCalls = $state(0)
  closeCalls = $state(0)

  /** Closes that dialog alone: the browser's word that one has closed may come when the next is open already. */
  closeDialog(name: DialogName): void {
    if (this.dialog === name) this.dialog = null
  }
  go(place: Place): void {
    this.place = place
    this.dialog = null
  }
  focusFilter(): void {
    this.go('flows')
    this.filterCalls += 1
  }
  focusPorts(): void {
    this.go('ports')
    this.portCalls += 1
  }
  setShare(share: number): void {
    this.#keep({ ...this.layout, share: Math.min(0.8, Math.max(0.2, share)) })
  }
  turn(): void {
    this.#keep({ ...this.layout, side: this.layout.side === 'right' ? 'below' : 'right' })
  }
  #keep(layout: Layout): void {
    this.layout = layout
    remember('layout', layout)
  }
}
