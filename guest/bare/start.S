/*
 * The start of the bare guest: from a multiboot loader's 32 bits to user mode of 64 bits, on every processor. Where the kernel mode of
 * a guest is emulated (KVM without nested virtualisation), only user mode runs at full speed.
 *
 * All 8 GiB from 0 are mapped one to one, in pages of 2 MiB, for user mode too. Other processors begin at TRAMPOLINE, in 16 bits,
 * when the first one has sent them INIT and STARTUP (Intel SDM 3A, 9.4). Nobody takes interrupts.
 */
#define TRAMPOLINE 0x8000
#define STACK_BYTES 16384
#define APIC_COMMAND 0xfee00300
#define APIC_VERSION_PAGE 0xfee000f0

    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl _start
_start:
    cli
    movl $pdpt + 7, pml4
    movl $pdpt, %edi
    movl $pds + 7, %eax
    movl $8, %ecx
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $4096, %eax
    loop 1b
    movl $pds, %edi
    movl $0x87, %eax            /* present, writable, user, 2 MiB */
    xorl %ebx, %ebx
    movl $4096, %ecx
2:  movl %eax, (%edi)
    movl %ebx, 4(%edi)
    addl $0x200000, %eax
    adcl $0, %ebx
    addl $8, %edi
    loop 2b
    movl $trampoline, %esi
    movl $TRAMPOLINE, %edi
    movl $trampoline_end - trampoline, %ecx
    rep movsb
    jmp to_long

/* Every processor comes here, in 32 bits. */
to_long:
    movl %cr0, %eax
    andl $~4, %eax
    orl $2, %eax
    movl %eax, %cr0
    movl %cr4, %eax
    orl $0x620, %eax            /* SSE, physical addresses of 64 bits */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    lgdt gdtr
    ljmp $8, $in_long

    .code64
in_long:
    movl $1, %ebx
    lock xaddl %ebx, processors /* the number of this one */
    cmpl $CPUS_MAX, %ebx
    jae halt
    movl %ebx, %eax
    incl %eax
    imull $STACK_BYTES, %eax
    addl $stacks, %eax
    movq %rax, %rsp
    testl %ebx, %ebx
    jnz to_user
    movb $0xff, %al             /* the old interrupt controllers are silent */
    outb %al, $0x21
    outb %al, $0xa1
    movl $APIC_VERSION_PAGE, %edi
    movl $0x1ff, (%rdi)
    movl $APIC_COMMAND, %edi
    movl $0x000c4500, (%rdi)    /* INIT, all but this one */
    movl $0x100000, %ecx
3:  pause
    loop 3b
    movl $0x000c4600 + TRAMPOLINE / 4096, (%rdi)
to_user:
    movl %ebx, %edi
    movq %rsp, %rax
    pushq $0x2b
    pushq %rax
    pushq $0x3002               /* user mode may use ports */
    pushq $0x33
    pushq $user
    iretq
user:
    call check
halt:
    hlt
    jmp halt

    .code16
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + gdtr16 - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x10, $ap32
gdtr16:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
ap32:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    jmp to_long

    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 08: code, 64 bits */
    .quad 0x00cf9b000000ffff    /* 10: code, 32 bits */
    .quad 0x00cf93000000ffff    /* 18: data */
    .quad 0
    .quad 0x00cff3000000ffff    /* 2b: data of user mode */
    .quad 0x00affb000000ffff    /* 33: code of user mode */
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pds:    .skip 8 * 4096
stacks: .skip CPUS_MAX * STACK_BYTES
processors: .skip 4

    .section .note.GNU-stack, "", @progbits
