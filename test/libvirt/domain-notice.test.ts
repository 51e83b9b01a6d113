/** What people find in the description of a domain, beside what they have written there. */
import { expect, test } from 'vitest'
import { withNotice } from '../../src/libvirt/domain-notice.ts'

const domain = (description = '') => `<domain type="kvm">
  <name>web</name>
  <title>The web</title>${description}
  <memory>1</memory>
</domain>
`
const described = (text: string) => domain(`\n  <description>${text}</description>`)

test('a notice comes and goes', () => {
  expect(withNotice(domain(), 'it runs on b')).toBe(described('subpage: it runs on b'))
  expect(withNotice(described('subpage: it runs on b'), 'it runs on c')).toBe(
    described('subpage: it runs on c'),
  )
  expect(withNotice(described('subpage: it runs on b'), undefined)).toBe(domain())
})

test('what people have written stays', () => {
  const own = described('Ask Ann\n  before it is stopped')
  const noted = withNotice(own, 'it runs on b')
  expect(noted).toBe(described('Ask Ann\n  before it is stopped\nsubpage: it runs on b'))
  expect(withNotice(noted, undefined)).toBe(own)
})

test.each([domain(), described(''), described('own'), described('\n own\n')])(
  'a description without one is left as it is',
  (own) => {
    expect(withNotice(own, undefined)).toBe(own)
  },
)
