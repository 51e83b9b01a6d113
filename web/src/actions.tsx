/** What can be done with a guest, after a question that says what will happen. */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Cancelled, GuestStatus, Verified } from '../../src/agent/status.ts'
import { ask, type Session } from './session.ts'
import { hostOf } from './words.ts'

interface Action {
  name: 'protect' | 'switchover' | 'verify' | 'unprotect' | 'cancel'
  title: string
  /** One sentence each. */
  happens: string[]
  grave?: true
}

const cancelled = {
  protect: (name: string) =>
    `${name} runs on without a standby; what the other host has of its memory is discarded, and copies of disks that were made for it.`,
  verify: (name: string) => `${name} is protected as before. What was not compared stays unknown.`,
  switchover: (name: string) => `${name} runs on here, and is protected as before.`,
}

function actionsOf(guest: GuestStatus): Action[] {
  const { name, role, state, operation } = guest
  if (role === 'Standby') return []
  // An agent of an older release says nothing of it.
  if (operation?.cancellable)
    return [{ name: 'cancel', title: `Cancel ${operation.kind}`, happens: [cancelled[operation.kind](name)] }]
  const peer = hostOf(guest)
  if (peer === null)
    return [
      {
        name: 'protect',
        title: 'Protect',
        happens: [
          `The other host starts a standby of ${name}, and takes as much memory as ${name} has.`,
          `${name} runs on while its memory is sent; then it is paused for some milliseconds, many times a second.`,
          'What it sends waits until the standby has its state.',
        ],
      },
    ]
  const whole = state === 'Protected' || state === 'Lagging'
  const actions: Action[] = [
    {
      name: 'switchover',
      title: 'Switch over',
      happens: [
        `${name} moves to ${peer}, and this host becomes its standby.`,
        'It stands still for some tens of milliseconds. Nothing is lost, and connections last.',
      ],
    },
    {
      name: 'verify',
      title: 'Verify',
      happens: [
        `The memory of ${name} is compared with that of its standby, page by page.`,
        `${name} is paused meanwhile: about a second for each GiB. Disks are compared while it runs.`,
      ],
    },
  ]
  const unprotect: Action = {
    name: 'unprotect',
    title: 'Unprotect',
    grave: true,
    happens: [
      `${name} runs on, without a standby: if this host is lost, ${name} is.`,
      `What ${peer} holds of its memory is discarded. Copies of disks stay there.`,
    ],
  }
  return [...(whole ? actions : []), unprotect]
}

export function Actions({ guest, session }: { guest: GuestStatus; session: Session }) {
  const [asked, setAsked] = useState<Action>()
  if (session.rights === 'read') return null
  return (
    <div class="actions">
      {actionsOf(guest).map((action) => (
        <button
          key={action.name}
          type="button"
          class={action.grave ? 'grave' : ''}
          onClick={() => setAsked(action)}
        >
          {action.title}
        </button>
      ))}
      {asked && <Question action={asked} guest={guest} session={session} close={() => setAsked(undefined)} />}
    </div>
  )
}

interface QuestionProps {
  action: Action
  guest: GuestStatus
  session: Session
  close: () => void
}

function Question({ action, guest, session, close }: QuestionProps) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [to, setTo] = useState('')
  const [doing, setDoing] = useState(false)
  const [said, setSaid] = useState<{ text: string; good: boolean }>()
  useEffect(() => dialog.current?.showModal(), [])
  const act = async () => {
    setDoing(true)
    try {
      setSaid({ text: await perform(session, action.name, guest.name, to), good: true })
    } catch (error) {
      setSaid({ text: (error as Error).message, good: false })
    }
    setDoing(false)
  }
  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={close}>
      <h2 id="question">
        {action.title} {guest.name}?
      </h2>
      {said ? (
        <p class={said.good ? 'said' : 'said wrong'} role="status">
          {said.text}
        </p>
      ) : (
        <ul>
          {action.happens.map((sentence) => (
            <li key={sentence}>{sentence}</li>
          ))}
        </ul>
      )}
      {action.name === 'protect' && !said && (
        <label>
          The other host
          <input
            type="text"
            placeholder="HOST:PORT"
            value={to}
            onInput={({ currentTarget }) => setTo(currentTarget.value.trim())}
          />
        </label>
      )}
      <div class="actions">
        <button type="button" onClick={() => dialog.current?.close()}>
          {said ? 'Close' : 'Cancel'}
        </button>
        {!said && (
          <button
            type="button"
            class={action.grave ? 'grave' : 'main'}
            disabled={doing || (action.name === 'protect' && to === '')}
            onClick={() => void act()}
          >
            {doing ? 'One moment …' : action.title}
          </button>
        )}
      </div>
    </dialog>
  )
}

/** @returns what has become of it, in words */
async function perform(session: Session, action: Action['name'], name: string, to: string): Promise<string> {
  const path = `/v1/guests/${encodeURIComponent(name)}/${action}`
  if (action === 'verify') {
    const { equal, pages, epoch } = await ask<Verified>(session, 'POST', path)
    return equal
      ? `Equal: all ${pages} pages, at checkpoint ${epoch}.`
      : `They differ. subpage verify ${name} says where; protect it anew.`
  }
  if (action === 'protect') {
    await ask(session, 'POST', path, { to })
    return `The standby of ${name} is being seeded.`
  }
  if (action === 'cancel') {
    const { copies } = await ask<Cancelled>(session, 'POST', path)
    return copies.length > 0
      ? `It was cancelled. Copies of disks may stay on the other host: ${copies.join(', ')}`
      : 'It was cancelled.'
  }
  await ask(session, 'POST', path)
  return action === 'switchover' ? `${name} runs on the other host now.` : `${name} has no standby any more.`
}
