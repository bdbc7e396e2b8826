import type { Endpoint, Nanoseconds } from '#core/flow/flow.ts'

const numbers = new Intl.NumberFormat('en', { useGrouping: true })
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })

/** 1234567 -> "1,234,567". */
export function formatCount(count: number): string {
  return numbers.format(count)
}

/** "1 flow", "2 flows". */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`
}

/** Bytes by thousands, as Wireshark and file managers here count: "0 B", "999 B", "1.2 kB", "34 MB". */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let unit = -1
  do {
    value /= 1000
    unit += 1
  } while (value >= 999.5 && unit < units.length - 1)
  return `${value < 9.95 ? value.toFixed(1) : numbers.format(Math.round(value))} ${units[unit] ?? 'PB'}`
}

/** Milliseconds between two moments; undefined when either is missing. */
export function millisecondsBetween(from: Nanoseconds | undefined, to: Nanoseconds | undefined): number | undefined {
  if (from === undefined || to === undefined) return undefined
  return Number(BigInt(to) - BigInt(from)) / 1e6
}

export function toDate(time: Nanoseconds): Date {
  return new Date(Number(BigInt(time) / 1_000_000n))
}

/** "14:03:22.512", local time. */
export function formatClock(time: Nanoseconds): string {
  const date = toDate(time)
  return `${clock.format(date)}.${String(date.getMilliseconds()).padStart(3, '0')}`
}

/** "25 Nov 2026, 14:03:22.512482913". */
export function formatMoment(time: Nanoseconds): string {
  const date = toDate(time)
  return `${day.format(date)}, ${clock.format(date)}.${(BigInt(time) % 1_000_000_000n).toString().padStart(9, '0')}`
}

/** "14:03:22" of milliseconds since the epoch. */
export function formatClockOf(milliseconds: number): string {
  return clock.format(new Date(milliseconds))
}

/** Milliseconds as a person says them: "0.4 ms", "12 ms", "3.2 s", "4 min 05 s", "2 h 10 min". */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 0) return `−${formatDuration(-milliseconds)}`
  if (milliseconds < 0.001) return '0 ms'
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`
  if (milliseconds < 9.95) return `${milliseconds.toFixed(1)} ms`
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`
  const seconds = milliseconds / 1000
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`
  const whole = Math.round(seconds)
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  return `${formatCount(Math.floor(whole / 3600))} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`
}

/** Milliseconds that are left, as a clock counts down: "9:58", "1:02:03". */
export function formatCountdown(milliseconds: number): string {
  const whole = Math.max(0, Math.ceil(milliseconds / 1000))
  const two = (value: number): string => String(value).padStart(2, '0')
  const minutes = Math.floor(whole / 60)
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`
}

/** "203.0.113.2:80", "[2001:db8::1]:80". */
export function formatEndpoint({ address, port }: Endpoint): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}
