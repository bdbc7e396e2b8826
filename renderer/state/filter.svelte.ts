import { readRemembered, remember } from './remembered.ts'

export interface Suggestion {
  /** What the list shows. */
  readonly label: string
  readonly hint: string
  /** The whole text with it, and where the cursor stands then. */
  readonly text: string
  readonly cursor: number
}
export type FilterVerdict = { readonly kind: 'empty' } | { readonly kind: 'valid'; readonly says: string } | { readonly kind: 'invalid'; readonly message: string }

/** The filter language as the box needs it; the page's own is `filterLanguage`. */
export interface FilterLanguage {
  check(text: string): FilterVerdict
  complete(text: string, cursor: number): readonly Suggestion[]
}

const mostRecent = 12
function areStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

/** Text, verdict, completions and recents of the filter box. A filter that is valid is applied as it is typed. */
export class FilterBox {
  text = $state('')
  cursor = $state(0)
  /** Completions are wanted: a person types. */
  listening = $state(false)
  picked = $state(-1)
  recents = $state.raw<readonly string[]>(readRemembered('filters', areStrings) ?? [])
  readonly #language: FilterLanguage
  readonly #apply: (filter: string) => void
  readonly #wait: number
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(language: FilterLanguage, apply: (filter: string) => void, wait = 160) {
    this.#language = language
    this.#apply = apply
    this.#wait = wait
  }

  readonly verdict = $derived.by(() => this.#language.check(this.text))
  readonly suggestions: readonly Suggestion[] = $derived.by(() => {
    if (!this.listening) return []
    if (this.text.trim() === '') return this.recents.map((text) => ({ label: text, hint: 'recent', text, cursor: text.length }))
    return this.#language.complete(this.text, this.cursor)
  })

  type(text: string, cursor: number): void {
    this.text = text
    this.cursor = cursor
    this.listening = true
    this.picked = -1
    clearTimeout(this.#timer)
    if (this.verdict.kind !== 'invalid') this.#timer = setTimeout(() => this.#apply(this.text.trim()), this.#wait)
  }
  /** Enter, or from a menu: applied at once and remembered. */
  use(text: string): void {
    this.text = text
    this.cursor = text.length
    this.listening = false
    this.picked = -1
    clearTimeout(this.#timer)
    if (this.verdict.kind === 'invalid') return
    const filter = text.trim()
    this.#apply(filter)
    if (filter === '') return
    this.recents = [filter, ...this.recents.filter((other) => other !== filter)].slice(0, mostRecent)
    remember('filters', this.recents)
  }
  /** Steps through the suggestions; -1 is the box itself. */
  step(by: number): void {
    const places = this.suggestions.length + 1
    this.picked = ((this.picked + 1 + by + places) % places) - 1
  }
  take(suggestion: Suggestion): void {
    this.type(suggestion.text, suggestion.cursor)
    if (suggestion.hint === 'recent') this.use(suggestion.text)
  }
  /** Esc: first the list, then the text. True when there was something to do. */
  escape(): boolean {
    if (this.listening && this.suggestions.length > 0) {
      this.listening = false
      return true
    }
    if (this.text === '') return false
    this.use('')
    return true
  }
  clear(): void {
    this.use('')
  }
  /** The text with another condition: `and`, `and not`, or in place of it. */
  combine(condition: string, how: 'selected' | 'not' | 'and' | 'and not' | 'or'): void {
    const now = this.verdict.kind === 'valid' ? this.text.trim() : ''
    const grouped = /\bor\b|\|\|/i.test(now) ? `(${now})` : now
    if (how === 'not') this.use(`not ${condition}`)
    else if (how === 'selected' || now === '') this.use(how === 'and not' ? `not ${condition}` : condition)
    else if (how === 'or') this.use(`${now} or ${condition}`)
    else this.use(`${grouped} and ${how === 'and not' ? 'not ' : ''}${condition}`)
  }
}
