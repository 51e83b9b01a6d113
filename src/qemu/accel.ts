/** Which accelerator a guest gets when nobody chose one. */
import { checkKvm } from './check/kvm.ts'

/** `kvm` only where it has been seen to run a guest. At most 8 s the first time after a boot, then at once. */
export async function probeAccel(): Promise<'kvm' | 'tcg'> {
  return (await checkKvm()).works ? 'kvm' : 'tcg'
}
