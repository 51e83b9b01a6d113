/**
 * A libvirtd of a test's own: in a mount namespace in which /etc/libvirt, /var/lib/libvirt and the like are empty, so that it has nothing of
 * the host's libvirt, and leaves nothing. virsh and subpage reach it through the same namespace. QEMU has a
 * user of less rights, as Debian has it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { type Finished, finished, mainFile } from './subpage.ts'

/** Each is a host: it has its own shared memory, too. */
const places = [
  '/dev/shm',
  '/etc/libvirt',
  '/var/lib/libvirt',
  '/var/log/libvirt',
  '/var/cache/libvirt',
  '/run/libvirt',
]

const configuration = [
  'user = "libvirt-qemu"',
  'group = "kvm"',
  // Of the kernel and the initrd.
  'dynamic_ownership = 0',
  'security_driver = "none"',
  'cgroup_controllers = []',
  'stdio_handler = "file"',
  'remember_owner = 0',
]

const script = `set -e
for place in ${places.join(' ')}; do mkdir -p $place; mount -t tmpfs libvirt $place; done
# As its package has it.
mkdir --mode 711 /var/lib/libvirt/images
printf '%s\\n' ${configuration.map((line) => `'${line}'`).join(' ')} > /etc/libvirt/qemu.conf
# While that user may not open it, libvirt tries each QEMU anew for each command.
if [ -e /dev/kvm ]; then mknod --mode 666 /run/libvirt/kvm c 10 232; mount --bind /run/libvirt/kvm /dev/kvm; fi
printf '%s\\n' 'unix_sock_group = "root"' 'auth_unix_rw = "none"' > /etc/libvirt/libvirtd.conf
exec libvirtd --pid-file /run/libvirt/libvirtd.pid`

export class Libvirtd {
  readonly #daemon: ChildProcess

  private constructor(daemon: ChildProcess) {
    this.#daemon = daemon
  }

  static async start(): Promise<Libvirtd> {
    // A test run that is killed takes it along.
    const [program, ...args] = [
      'setpriv',
      '--pdeathsig',
      'TERM',
      'unshare',
      '--mount',
      '--propagation',
      'private',
    ]
    const daemon = spawn(program!, [...args, 'sh', '-c', script], { stdio: ['ignore', 'ignore', 'pipe'] })
    const libvirtd = new Libvirtd(daemon)
    let said = ''
    daemon.stderr.setEncoding('utf8').on('data', (text) => {
      said += text
    })
    while ((await libvirtd.run('virsh', '--quiet', 'list')).status !== 0) {
      if (daemon.exitCode !== null) throw new Error(`libvirtd ended: ${said}`)
      await delay(50)
    }
    return libvirtd
  }

  /** What runs a command beside it. */
  get prefix(): string[] {
    return ['nsenter', '--mount', '--target', String(this.#daemon.pid), '--']
  }

  /** By which others find a file of this host. */
  pathOf(path: string): string {
    return `/proc/${this.#daemon.pid}/root${path}`
  }

  async run(...command: string[]): Promise<Finished> {
    const [program, ...inside] = [...this.prefix, ...command]
    const child = spawn(program!, inside, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LIBVIRT_DEFAULT_URI: 'qemu:///system' },
    })
    return await finished(child)
  }

  subpage(...args: string[]): Promise<Finished> {
    return this.run(process.execPath, mainFile, ...args)
  }

  /** @throws Error with virsh's words */
  async virsh(...args: string[]): Promise<string> {
    const { status, out, said } = await this.run('virsh', '--quiet', ...args)
    if (status !== 0) throw new Error(`virsh ${args.join(' ')}: ${said}`)
    return out
  }

  /** As `virsh list` has it, such as `running`. */
  async stateOf(name: string): Promise<string> {
    return (await this.virsh('domstate', name)).trim()
  }

  /** Types lines on a domain's serial console, which the guest must answer, as the demo guest does. */
  async type(name: string, lines: string[]): Promise<void> {
    const console = (await this.virsh('ttyconsole', name)).trim()
    // QEMU looks once in a second whether anybody is there, and what nobody reads would hold the guest up.
    const client = spawn('sh', ['-c', `exec 3<>${console}; cat <&3 & cat >&3; wait`], { detached: true })
    let said = ''
    for (const line of lines) {
      const answered = said.length
      client.stdin.write(`${line}\n`)
      for await (const text of client.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
        said += text
        if (/exit \d+\r?\n$/.test(said.slice(answered))) break
      }
    }
    process.kill(-client.pid!)
  }

  /** With all its domains. */
  async [Symbol.asyncDispose](): Promise<void> {
    // It may be ending by itself.
    for (const name of (await this.virsh('list', '--name')).split('\n').filter(Boolean))
      await this.run('virsh', 'destroy', name)
    const ended = once(this.#daemon, 'exit')
    this.#daemon.kill()
    await ended
  }
}
