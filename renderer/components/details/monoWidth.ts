let measured: number | undefined

/** Width of a character of the fixed face at 12px, in pixels. */
export function monoWidth(): number {
  if (measured === undefined) {
    const probe = document.createElement('span')
    probe.className = 'mono visually-hidden'
    probe.textContent = '0'.repeat(100)
    document.body.append(probe)
    // clipped to 1px wide by its class, so what overflows is measured
    measured = probe.scrollWidth / 100 || 7.3
    probe.remove()
  }
  return measured
}
