import type { Suggestion } from '#core/contract/bridge.ts'
import { wordsOf } from '#core/plan/gateChoice.ts'

const mostShown = 60

/**
 * A field that holds several words: those that are done stand as chips, the one being typed counts already, so that what is wrong with it is said at once. The value
 * is one text, as it is kept and sent.
 */
export class WordList {
  draft = $state('')
  /** Which suggestion the arrow keys stand on; -1: none. */
  picked = $state(-1)
  listening = $state(false)
  readonly #value: () => string
  readonly #change: (value: string) => void
  readonly #suggestions: () => readonly Suggestion[]

  constructor(value: () => string, change: (value: string) => void, suggestions: () => readonly Suggestion[]) {
    this.#value = value
    this.#change = change
    this.#suggestions = suggestions
  }

  /** Words that are done. */
  readonly chips = $derived.by(() => {
    const words = wordsOf(this.#value())
    return this.draft !== '' && words.at(-1) === this.draft ? words.slice(0, -1) : words
  })
  readonly offers = $derived.by(() => {
    if (!this.listening) return []
    const typed = this.draft.toLowerCase()
    return this.#suggestions().filter(({ word, hint }) => !this.chips.includes(word) && word !== this.draft && (word.toLowerCase().includes(typed) || hint.toLowerCase().includes(typed))).slice(0, mostShown)
  })

  /** Text of the input: words before a comma or a space are done. */
  type(text: string): void {
    const words = wordsOf(text)
    const open = text === '' || /[\s,]$/.test(text) ? '' : (words.pop() ?? '')
    const before = this.chips
    this.draft = open
    this.picked = -1
    this.listening = true
    this.#keep([...before, ...words, ...(open === '' ? [] : [open])])
  }
  /** What was typed is a word of its own now. */
  finish(): void {
    this.draft = ''
    this.picked = -1
  }
  take({ word }: Suggestion): void {
    const before = this.chips
    this.finish()
    this.#keep([...before, word])
  }
  remove(word: string): void {
    const { draft } = this
    this.#keep([...this.chips.filter((other) => other !== word), ...(draft === '' ? [] : [draft])])
  }
  removeLast(): void {
    const last = this.chips.at(-1)
    if (last !== undefined) this.remove(last)
  }
  step(by: number): void {
    const places = this.offers.length + 1
    this.picked = ((this.picked + 1 + by + places) % places) - 1
  }

  #keep(words: readonly string[]): void {
    this.#change(words.filter((word, at) => words.indexOf(word) === at).join(', '))
  }
}
