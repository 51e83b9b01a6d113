/** A page of the browser, or a file, as a picture of the documents. */
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { packageRoot } from '../../src/package-root.ts'

const pictures = join(packageRoot, 'docs/pictures')
const bytesMax = 150 * 1024

export const desk = { viewport: { width: 1280, height: 800 } }
export const telephone = { viewport: { width: 390, height: 844 } }

export async function take(page: Page, of: string, fullPage = false): Promise<void> {
  // Nothing is pointed at.
  await page.mouse.move(0, 0)
  keep(await page.screenshot({ fullPage }), of)
}

/** @param png a picture that somebody else has taken */
export function keep(png: Buffer, of: string): void {
  if (png.length > bytesMax)
    throw new Error(`${of} has ${png.length} bytes: more than a document should carry`)
  mkdirSync(pictures, { recursive: true })
  const path = join(pictures, `${of}.png`)
  writeFileSync(path, png)
  console.log(`${path}: ${(statSync(path).size / 1024).toFixed(0)} KiB`)
}
