/** UTF-8 both ways. `core` knows neither Node nor DOM, yet every engine it runs in has these two classes. */
interface Codecs {
  readonly TextEncoder: new () => { encode(text: string): Uint8Array }
  readonly TextDecoder: new (label: string, options: { fatal: boolean }) => { decode(bytes: Uint8Array): string }
}
const codecs = globalThis as unknown as Codecs
const encoder = new codecs.TextEncoder()
const lenient = new codecs.TextDecoder('utf-8', { fatal: false })

export const encodeUtf8 = (text: string): Uint8Array => encoder.encode(text)
/** What is not UTF-8 becomes U+FFFD. */
export const decodeUtf8 = (bytes: Uint8Array): string => lenient.decode(bytes)

/** Bytes as the characters of the same number, for protocols that are ASCII with strays. */
export function decodeLatin1(bytes: Uint8Array, start = 0, end = bytes.length): string {
  let text = ''
  for (let at = start; at < end; at += 4096) text += String.fromCharCode.apply(null, bytes.subarray(at, Math.min(at + 4096, end)) as unknown as number[])
  return text
}
