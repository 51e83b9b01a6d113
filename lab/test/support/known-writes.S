/*
 * Firmware of a machine without an operating system whose every access to memory is known: it does on command what known-writes.ts
 * asks for, and nothing else. It has no stack, no interrupts and no variables: it keeps everything in registers, and its code and tables lie in the ROM.
 *
 * A command on COM1: its letter, then address, stride and count as numbers of 32 bits, little endian, then a byte. Answered by "k".
 *   w  stores the byte at COUNT places        s  stores there what is there already        r  only reads there
 *   f  fills COUNT bytes (rep stosb)          d  tells fw_cfg to read the DMA request at the address (QEMU docs/specs/fw_cfg)
 *   x  runs the code at the address COUNT times; it ends with a jump to %esi, and what it leaves in %al is the answer
 */
        .text
        .code16
        .globl _start
_start:
        cli
        lgdtl   %cs:(gdt - _start)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $protected

        .code32
.macro receive
8:      movw    $0x3fd, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      8b
        movw    $0x3f8, %dx
        inb     %dx, %al
.endm

/* Into %ebx. */
.macro receive_number
        .rept 4
        receive
        movb    %al, %bl
        rorl    $8, %ebx
        .endr
.endm

protected:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
next:
        receive
        movzbl  %al, %ebp
        receive_number
        movl    %ebx, %edi
        receive_number
        movl    %ebx, %esi
        receive_number
        movl    %ebx, %ecx
        receive
        movb    %al, %bl
        cmpl    $'f', %ebp
        je      fill
        cmpl    $'d', %ebp
        je      device
        cmpl    $'x', %ebp
        je      run
each:
        cmpl    $'w', %ebp
        je      write
        movb    (%edi), %al
        cmpl    $'s', %ebp
        jne     done
        movb    %al, (%edi)
        jmp     done
write:
        movb    %bl, (%edi)
done:
        addl    %esi, %edi
        decl    %ecx
        jnz     each
answer:
        movw    $0x3f8, %dx
        movb    $'k', %al
        outb    %al, %dx
        jmp     next
fill:
        movb    %bl, %al
        cld
        rep stosb
        jmp     answer
device:
        movl    %edi, %eax
        bswapl  %eax
        movw    $0x518, %dx
        outl    %eax, %dx
        jmp     answer
run:
        movl    $ran, %esi
        jmp     *%edi
ran:
        decl    %ecx
        jnz     run
        movw    $0x3f8, %dx
        outb    %al, %dx
        jmp     next

        .balign 8
/* Descriptors are marked as accessed: the processor then writes nothing to them. */
segments:
        .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt:
        .word   gdt - segments - 1
        .long   segments

        .org    0xfff0
        .code16
        jmp     _start
        .org    0x10000
