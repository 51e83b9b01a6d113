/** The share of the QEMU plugin is declared twice, in C and in TypeScript: both say the same. */

import { addon } from 'subpage/memory/native'
import { pluginParts } from 'subpage/qemu/plugin'
import { expect, test } from 'vitest'
import * as layout from '../../src/plugin/layout.ts'

test('C and TypeScript declare one layout', () => {
  const { headerAt, vcpuAt, logAt } = layout
  expect(addon.pluginLayout()).toEqual({
    format: layout.shareFormat,
    countMax: layout.countMax,
    vcpuCountMax: layout.vcpuCountMax,
    logSizes: layout.logEntries.length,
    logEntriesMin: layout.logEntries[0],
    ...pluginParts,
    ...Object.fromEntries(Object.entries(headerAt).map(([field, at]) => [`${field}At`, at])),
    headerBytes: layout.headerBytes,
    vcpuBytes: layout.vcpuBytes,
    ...Object.fromEntries(Object.entries(vcpuAt).map(([field, at]) => [`${field}At`, at])),
    ...Object.fromEntries(Object.entries(logAt).map(([field, at]) => [`${field}At`, at])),
  })
  for (const [size, entries] of layout.logEntries.entries())
    expect(entries).toBe(layout.logEntries[0] << size)
})
