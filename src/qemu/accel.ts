/** Which accelerator a guest gets. */
import { SubpageError } from '../errors.ts'
import { checkKvm } from './check/kvm.ts'

/** `kvm` only where it has been seen to run a guest. At most 8 s the first time after a boot, then at once. */
export async function probeAccel(): Promise<'kvm' | 'tcg'> {
  return (await checkKvm()).works ? 'kvm' : 'tcg'
}

/**
 * A plugin sees the accesses of a guest whose code QEMU translates, and no others.
 * @throws SubpageError BAD_ARGUMENT
 */
export async function chooseAccel({
  accel,
  track = [],
}: {
  accel: 'auto' | 'kvm' | 'tcg'
  track?: readonly string[]
}): Promise<'kvm' | 'tcg'> {
  if (track.length === 0) return accel === 'auto' ? await probeAccel() : accel
  if (accel === 'kvm')
    throw new SubpageError(
      'BAD_ARGUMENT',
      `cannot track ${track.join(', ')} with --accel kvm: QEMU sees each access only where it translates the guest's code, with --accel tcg`,
    )
  return 'tcg'
}
