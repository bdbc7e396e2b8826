import { curlCommand, type CurlBody } from '#core/export/curlCommand.ts'
import type { AppState } from '#ui/state/app.svelte.ts'
import { decodeBase64, decodeText, looksLikeText } from './bytes.ts'

/** A longer body does not belong on a command line. */
const longestBody = 65_536

/** Copies a request of a flow as a curl command; its body too where it is text. */
export async function copyCurl(app: AppState, flow: number, exchange: number): Promise<void> {
  await app.notices.attempt(async () => {
    const { exchanges } = await app.client.call('flow', { flow, exchangeOffset: exchange, exchangeLimit: 1 })
    const request = exchanges[0]?.request
    if (request === undefined) return
    let body: CurlBody | undefined
    if (request.body.length > 0) {
      const page = await app.client.call('body', { flow, exchange, part: 'request', decoded: false, offset: 0, limit: longestBody })
      const bytes = decodeBase64(page.bytes)
      const whole = !request.body.truncated && bytes.length === page.total
      body = whole && looksLikeText(bytes) ? { text: decodeText(bytes) } : { file: `request-${flow}-${exchange + 1}.body` }
    }
    await app.client.call('copyText', curlCommand(request, body))
    app.notices.add({
      kind: 'info',
      text: 'Copied as cURL',
      details: body !== undefined && 'file' in body ? [`The body is no short text: save it as ${body.file} first.`] : [],
    })
  })
}
