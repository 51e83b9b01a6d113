/**
 * Networks for tests, of real links: a bridge on this host that carries frames only (no address of it belongs to the host),
 * namespaces with an address of their own that are attached to a bridge, and TCP connections made in them. All names begin
 * with the pid of the test, so that the next test can sweep away what a killed one left.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'

const run = promisify(execFile)

export async function ip(...args: string[]): Promise<string> {
  return (await run('ip', args)).stdout
}

/** Frames that QEMU has put out on this tap. */
export async function framesFrom(tap: string, namespace?: string): Promise<number> {
  const where = namespace === undefined ? [] : ['-netns', namespace]
  const [link] = JSON.parse(await ip(...where, '-json', '-statistics', 'link', 'show', 'dev', tap))
  return link.stats64.rx.packets
}

let made = 0

export class TestNetwork {
  readonly #prefix = `spt${process.pid}`
  readonly #bridges: string[] = []
  readonly #namespaces: string[] = []
  readonly #connections: Connection[] = []

  private constructor() {}

  static async make(): Promise<TestNetwork> {
    await sweep()
    return new TestNetwork()
  }

  /** The name of a bridge for this test alone; whoever uses it first makes it. */
  bridgeName(): string {
    const name = `${this.#prefix}b${made++}`
    this.#bridges.push(name)
    return name
  }

  async bridge(): Promise<string> {
    const name = this.bridgeName()
    await ip('link', 'add', 'name', name, 'type', 'bridge')
    await ip('link', 'set', 'dev', name, 'up')
    return name
  }

  async namespace(): Promise<string> {
    const name = `${this.#prefix}-${made++}`
    await ip('netns', 'add', name)
    this.#namespaces.push(name)
    await ip('-netns', name, 'link', 'set', 'dev', 'lo', 'up')
    return name
  }

  /**
   * Puts a namespace on a bridge, by an interface `eth0` with this address.
   * @param bridgeIn the namespace of the bridge; ours without
   * @returns the name of its port
   */
  async attach(namespace: string, address: string, bridge: string, bridgeIn?: string): Promise<string> {
    const port = `${this.#prefix}v${made++}`
    await ip('link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
    const where = bridgeIn === undefined ? [] : ['-netns', bridgeIn]
    if (bridgeIn !== undefined) await ip('link', 'set', 'dev', port, 'netns', bridgeIn)
    await ip(...where, 'link', 'set', 'dev', port, 'master', bridge, 'up')
    await ip('-netns', namespace, 'address', 'add', address, 'dev', 'eth0')
    await ip('-netns', namespace, 'link', 'set', 'dev', 'eth0', 'up')
    return port
  }

  /** Connects two bridges in two namespaces, as a cable does. */
  async cable([nameA, a]: [string, string], [nameB, b]: [string, string]): Promise<void> {
    const number = made++
    const [portA, portB] = [`${this.#prefix}x${number}`, `${this.#prefix}y${number}`]
    await ip('link', 'add', portA, 'netns', a, 'type', 'veth', 'peer', 'name', portB, 'netns', b)
    await ip('-netns', a, 'link', 'set', 'dev', portA, 'master', nameA, 'up')
    await ip('-netns', b, 'link', 'set', 'dev', portB, 'master', nameB, 'up')
  }

  async connect(namespace: string, host: string, port: number): Promise<Connection> {
    const connection = new Connection(namespace, host, port)
    this.#connections.push(connection)
    await connection.until((text) => text.startsWith('connected\n'))
    connection.received = connection.received.slice('connected\n'.length)
    return connection
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections) connection.close()
    for (const namespace of this.#namespaces) await ip('netns', 'delete', namespace)
    // A bridge that nobody made in the end, or that has gone with its namespace.
    for (const bridge of this.#bridges) await ip('link', 'delete', bridge).catch(() => undefined)
  }
}

/** A TCP connection from inside a namespace: a process there passes bytes on, in both directions. */
export class Connection {
  readonly #process: ChildProcess
  #waiting: (() => void)[] = []
  received = ''
  /** What ended it: nothing yet, or the error's code, or `end`. */
  ended: string | undefined

  constructor(namespace: string, host: string, port: number) {
    const program = `
      const socket = require('node:net').connect(${port}, ${JSON.stringify(host)})
      socket.setNoDelay(true)
      socket.on('connect', () => process.stdout.write('connected\\n'))
      socket.on('error', (error) => { process.stderr.write(error.code); process.exit(1) })
      socket.on('close', () => process.exit(0))
      process.stdin.on('end', () => process.exit(0))
      process.stdin.pipe(socket).pipe(process.stdout)`
    this.#process = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', program], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    // A connection that has ended takes nothing more; `ended` tells.
    this.#process.stdin?.on('error', () => undefined)
    let said = ''
    this.#process.stderr?.on('data', (text) => {
      said += text
    })
    this.#process.stdout?.on('data', (text) => {
      this.received += text
      this.#wake()
    })
    this.#process.on('close', () => {
      this.ended = said || 'end'
      this.#wake()
    })
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  send(text: string): void {
    this.#process.stdin?.write(text)
  }

  /** Resolves with all that was received when it satisfies the condition. */
  async until(found: (text: string) => boolean, limitMs = 60_000): Promise<string> {
    const deadline = performance.now() + limitMs
    while (!found(this.received)) {
      if (this.ended !== undefined) throw new Error(`the connection ended (${this.ended}): ${this.received}`)
      const ms = deadline - performance.now()
      if (ms <= 0) throw new Error(`waited in vain; received: ${this.received.slice(-300)}`)
      let timer: NodeJS.Timeout | undefined
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
        timer = setTimeout(resolve, ms)
      })
      clearTimeout(timer)
    }
    return this.received
  }

  close(): void {
    this.#process.stdin?.end()
  }
}

/** Removes what tests left whose process is gone. */
async function sweep(): Promise<void> {
  const gone = (name: string) => {
    const pid = /^spt(\d+)[-bvxy]/.exec(name)?.[1]
    return pid !== undefined && !existsSync(`/proc/${pid}`)
  }
  const namespaces = JSON.parse((await ip('-json', 'netns', 'list')) || '[]') as { name: string }[]
  for (const { name } of namespaces.filter(({ name }) => gone(name))) await ip('netns', 'delete', name)
  const links = JSON.parse(await ip('-json', 'link', 'show')) as { ifname?: string }[]
  for (const { ifname } of links) {
    if (ifname === undefined || !gone(ifname)) continue
    // The other end of a pair goes with the first.
    await ip('link', 'delete', ifname).catch(() => undefined)
  }
}
