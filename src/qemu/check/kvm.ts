/**
 * Whether KVM truly runs a guest. Being able to open /dev/kvm proves little: on some nested hosts a guest starts, prints its
 * first bytes and hangs. So a real Linux kernel is booted, without a root file system, until it has come to its end:
 * the panic for want of one. By then it has decompressed itself, set up paging, timers and interrupts, and run threads.
 */
import { accessSync, closeSync, constants, existsSync, openSync, realpathSync, statSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { errorCode } from '../../errors.ts'
import { packageRoot } from '../../memory/native.ts'
import { qemuBinary } from '../launch.ts'
import { bootCacheFile, readBootCache, writeBootCache } from './boot-cache.ts'
import { findCommand, probeQemu } from './probe-qemu.ts'

const bootMsMax = 8_000
const bootedWhole = /Kernel panic - not syncing/

export type KvmVerdict = { works: true; found: string } | { works: false; found: string; remedy: string }

/** The boot is done once per boot of this host, QEMU and kernel image; the rest takes microseconds. */
export async function checkKvm(): Promise<KvmVerdict> {
  const closed = whyClosed('/dev/kvm')
  if (closed) return closed
  const kernel = probeKernel()
  if (kernel === undefined)
    return {
      works: false,
      found: '/dev/kvm is there, but no kernel to prove it with',
      remedy: 'build the demo guest (scripts/build-guest.sh), or choose --accel kvm yourself',
    }
  const key = [kernel, qemuBinary].map(fingerprint).join(' ')
  const known = readBootCache<KvmVerdict>('kvm', key)
  if (known) return known
  const verdict = await bootKernel('kvm', kernel)
  writeBootCache('kvm', key, verdict)
  return verdict
}

function whyClosed(device: string): KvmVerdict | undefined {
  try {
    closeSync(openSync(device, 'r+'))
    return undefined
  } catch (error) {
    const code = errorCode(error)
    if (code === 'EACCES' || code === 'EPERM')
      return {
        works: false,
        found: `${device} is not open to this user`,
        remedy: 'add the user to the group kvm',
      }
    return {
      works: false,
      found: code === 'ENOENT' ? `there is no ${device}` : `${device} does not open: ${code}`,
      remedy:
        'enable virtualisation in the firmware, or nested virtualisation on the host of this machine; load kvm_intel or kvm_amd',
    }
  }
}

/** The demo guest's kernel, else the one this host itself runs. */
function probeKernel(): string | undefined {
  return [join(packageRoot, 'build/guest/vmlinuz'), `/boot/vmlinuz-${release()}`].find((path) => {
    if (!existsSync(path)) return false
    try {
      accessSync(path, constants.R_OK)
      return true
    } catch {
      return false // Some distributions let only root read it.
    }
  })
}

/** Changes when the file does. */
function fingerprint(command: string): string {
  const file = findCommand(command) ?? command
  if (!existsSync(file)) return file
  const { size, mtimeMs } = statSync(file)
  return `${realpathSync(file)}:${size}:${mtimeMs}`
}

/** @param accel tcg serves to prove the probe itself */
export async function bootKernel(
  accel: 'kvm' | 'tcg',
  kernel: string,
  timeMsMax = bootMsMax,
): Promise<KvmVerdict> {
  const { how, stdout, stderr } = await probeQemu(
    [
      ...['-no-user-config', '-nodefaults', '-display', 'none', '-M', 'q35', '-accel', accel, '-m', '256M'],
      ...['-serial', 'stdio', '-no-reboot', '-kernel', kernel],
      ...['-append', 'console=ttyS0 earlyprintk=serial,ttyS0 panic=-1'],
    ],
    { until: bootedWhole, timeMsMax },
  )
  if (how === 'matched') return { works: true, found: 'boots a Linux kernel' }
  const words = `${stderr}\n${stdout}`.trim().split(/\s*\n/)
  const said = words.at(-1) ? `; last words: ${words.at(-1)!.slice(0, 80)}` : ''
  return {
    works: false,
    found:
      how === 'timeout'
        ? `opens, but a Linux kernel did not boot in ${timeMsMax / 1000} s${said}`
        : `opens, but QEMU ended before a Linux kernel had booted${said}`,
    remedy: `guests run with TCG meanwhile, several times slower; a nested host needs real nested virtualisation from its operator${again()}`,
  }
}

/** The answer is remembered until the next boot, and a busy host may have been too slow this once. */
function again(): string {
  const file = bootCacheFile('kvm')
  return file === undefined ? '' : `; to try again: rm ${file}`
}
