/** What event-stream.ts sends, read again: each event is whole, however its bytes were cut on the way. */

/** @param chunks text, in any pieces; what it throws is thrown on */
export async function* eventsOf<T>(chunks: AsyncIterable<unknown>): AsyncGenerator<T> {
  let rest = ''
  for await (const chunk of chunks) {
    const parts = (rest + String(chunk)).split('\n\n')
    rest = parts.pop() ?? ''
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, '')) as T
  }
}
