/**
 * Small things about the window (column widths, panes) kept between runs. They are a convenience: whatever cannot be read or written, or is
 * not what it should be, counts as never said.
 */
export function readRemembered<Value>(key: string, isValue: (value: unknown) => value is Value): Value | undefined {
  try {
    const text = localStorage.getItem(`sluice.${key}`)
    if (text === null) return undefined
    const value: unknown = JSON.parse(text)
    return isValue(value) ? value : undefined
  } catch {
    return undefined
  }
}

export function remember(key: string, value: unknown): void {
  try {
    localStorage.setItem(`sluice.${key}`, JSON.stringify(value))
  } catch {
    // no storage here: then it is forgotten
  }
}
