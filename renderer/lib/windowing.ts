/**
 * Which rows of a list of equal rows stand in its window. Chromium stops laying out beyond about 33 million pixels, so a taller list is
 * squeezed: the scroll bar then moves through the rows in proportion.
 */
export interface RowWindow {
  readonly first: number
  /** One past the last. */
  readonly end: number
  /** Where the first of them begins, in pixels from the top of the scrolled area. */
  readonly top: number
  /** Height of the scrolled area. */
  readonly height: number
}

export const tallest = 16_000_000

export function rowWindow(count: number, rowHeight: number, viewHeight: number, scrollTop: number, overscan = 6): RowWindow {
  const full = count * rowHeight
  const height = Math.min(full, tallest)
  const offset = toOffset(count, rowHeight, viewHeight, scrollTop)
  const firstSeen = Math.floor(offset / rowHeight)
  const first = Math.max(0, Math.min(firstSeen - overscan, count))
  const end = Math.max(first, Math.min(count, Math.ceil((offset + viewHeight) / rowHeight) + overscan))
  return { first, end, top: Math.max(0, first * rowHeight + (scrollTop - offset)), height }
}

/** Scroll position as an offset into the rows' own pixels. */
function toOffset(count: number, rowHeight: number, viewHeight: number, scrollTop: number): number {
  const full = count * rowHeight
  if (full <= tallest) return Math.max(0, Math.min(scrollTop, Math.max(0, full - viewHeight)))
  const share = Math.min(1, Math.max(0, scrollTop / (tallest - viewHeight)))
  return share * (full - viewHeight)
}

/** Where to scroll so that row `index` is seen, moving as little as possible; `margin` is what covers the top (a header). */
export function scrollToRow(index: number, count: number, rowHeight: number, viewHeight: number, scrollTop: number): number {
  const full = count * rowHeight
  const offset = toOffset(count, rowHeight, viewHeight, scrollTop)
  const top = index * rowHeight
  let wanted = offset
  if (top < offset) wanted = top
  else if (top + rowHeight > offset + viewHeight) wanted = top + rowHeight - viewHeight
  if (wanted === offset) return scrollTop
  if (full <= tallest) return wanted
  return (wanted / (full - viewHeight)) * (tallest - viewHeight)
}
