import type { Nanoseconds } from '#core/flow/flow.ts'

const units = ['kB', 'MB', 'GB', 'TB', 'PB'] as const

/** "517 B", "12.3 kB": powers of 1000, as in the filter. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  let value = bytes / 1000
  let unit = 0
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${value.toFixed(value < 99.95 ? 1 : 0)} ${units[unit] as string}`
}

/** Local time of day to the millisecond. */
export function formatClock(time: Nanoseconds): string {
  const date = new Date(Number(BigInt(time) / 1_000_000n))
  const two = (value: number): string => String(value).padStart(2, '0')
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`
}
/** Local date and time to the microsecond with the offset. */
export function formatTime(time: Nanoseconds): string {
  const date = new Date(Number(BigInt(time) / 1_000_000n))
  const two = (value: number): string => String(Math.floor(Math.abs(value))).padStart(2, '0')
  const offset = -date.getTimezoneOffset()
  const micros = String((BigInt(time) / 1000n) % 1_000_000n).padStart(6, '0')
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${micros} ${offset < 0 ? '-' : '+'}${two(offset / 60)}:${two(offset % 60)}`
}

/** "0.4 ms", "250 ms", "1.50 s", "2 m 05 s", "3 h 07 m". */
export function formatDuration(from: Nanoseconds, to: Nanoseconds): string {
  const ms = Number(BigInt(to) - BigInt(from)) / 1e6
  if (ms < 10) return `${ms.toFixed(1)} ms`
  if (ms < 999.5) return `${ms.toFixed(0)} ms`
  const seconds = ms / 1000
  if (seconds < 59.995) return `${seconds.toFixed(2)} s`
  const whole = Math.round(seconds)
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${String(whole % 60).padStart(2, '0')} s`
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} m`
}

/** "1 flow", "2 flows". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

/** Hex and ASCII side by side, 16 bytes a line, as `hexdump -C` shows them. */
export function hexLines(bytes: Uint8Array, offset: number): string[] {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16)
    const hex = Array.from({ length: 16 }, (_, i) => (i < row.length ? (row[i] as number).toString(16).padStart(2, '0') : '  '))
    const text = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('')
    lines.push(`${(offset + at).toString(16).padStart(8, '0')}  ${hex.slice(0, 8).join(' ')}  ${hex.slice(8).join(' ')}  |${text}|`)
  }
  return lines
}
