/** What is gone, in a sentence for a person: four of them, and how many more there are. */
export function listed(names: readonly string[]): string {
  return `${names.slice(0, 4).join(', ')}${names.length > 4 ? ` and ${String(names.length - 4)} more` : ''}`
}
