/** placeholder until host checks land */
export async function probeAccel(): Promise<'kvm' | 'tcg'> {
  return 'tcg'
}
