/*
 * The fence: a guest that another host may go on with does not speak, however late its QEMU runs.
 *
 * Output commit ends in QEMU: the agent orders the release of packets, and QEMU executes that when it comes to it. Were both
 * stopped in between (SIGSTOP, a frozen cgroup, a machine that slept) and went on after the standby has taken over, the old
 * copy would speak once more. So each release carries a time until which the standby has promised not to take over, and
 * the last instruction before a packet leaves QEMU looks at the clock: `speak_until` in the lease file is
 *
 *   SPEAK_FREELY    no standby can take over: one atomic read for each packet, and no more
 *   a deadline      CLOCK_BOOTTIME, ns: until then
 *   SPEAK_NEVER     outputs are held; nothing is released yet
 *
 * The agent writes it: SPEAK_NEVER after it has turned the buffers on, a deadline before each release, SPEAK_FREELY before it
 * turns them off. QEMU's tap backend sends each packet by one writev(2) on its /dev/net/tun; one that comes too late is
 * counted in `silenced` and dropped, as by a network that is overloaded.
 *
 * Between the look at the clock and the system call a thread could be stopped too. On x86-64 the two are a restartable sequence
 * (rseq(2), registered by glibc 2.35 or later): when the thread was preempted, or got a signal, anywhere in it, the kernel
 * lets it begin anew. Once in the kernel a thread does not stop before its packet is with the network. What is left is a
 * stall inside the kernel, in a system call that does not wait, for longer than the margin that the standby adds to its
 * promise: the whole machine standing still, without its clock.
 */
#ifndef SUBPAGE_FENCE_H
#define SUBPAGE_FENCE_H

#include "lease.h"

/* From here on writes to taps heed it. */
void fence_start(struct lease *lease);

#endif
