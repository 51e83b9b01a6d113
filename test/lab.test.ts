/** The command that installs the lab, by how subpage was installed. */
import { expect, test } from 'vitest'
import { installation } from '../src/lab.ts'
import { release } from '../src/release.ts'

test.each([
  ['/usr/local/lib/node_modules/subpage', `npm install --global --prefix /usr/local subpage-lab@${release}`],
  ['/srv/shop/node_modules/subpage', `npm install --prefix /srv/shop subpage-lab@${release}`],
  [
    '/usr/lib/subpage',
    `npm install --prefix ~/subpage-lab subpage@${release} subpage-lab@${release}, and use ~/subpage-lab/node_modules/.bin/subpage`,
  ],
])('installed as %s', (root, command) => {
  expect(installation(root)).toBe(command)
})
