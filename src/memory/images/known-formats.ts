/**
 * Files that hold memory in a form that is not read here, and files that hold none: by their first bytes. Read as raw
 * memory they would give figures that mean nothing, so each is refused by its name, with the way to an image that is read.
 *
 * The bytes are those of the formats' own specifications or writers. A magic number of two bytes is not enough to call the
 * memory of a machine something else: such formats are listed with more of their header, or not at all.
 */
import { SubpageError } from '../../errors.ts'

interface Magic {
  at: number
  bytes: Buffer
  /** Bits of each byte that count; all when left out. */
  mask?: Buffer
}

export interface KnownFormat {
  name: string
  /** Any of them. */
  magics: readonly Magic[]
  remedy: string
}

/** Bytes of a file's start in which the magic numbers are. */
export const startBytes = 4096

const text = (bytes: string, at = 0): Magic => ({ at, bytes: Buffer.from(bytes, 'latin1') })
const hex = (bytes: string, at = 0): Magic => ({ at, bytes: Buffer.from(bytes.replaceAll(' ', ''), 'hex') })

const format = (name: string, remedy: string, ...magics: Magic[]): KnownFormat => ({ name, magics, remedy })
const packed = (name: string, command: string, ...magics: Magic[]): KnownFormat =>
  format(name, `unpack it first: ${command}`, ...magics)

const asElf =
  'take it as an ELF core: dump-guest-memory of QEMU without -z, -l, -s and -w, `virsh dump --memory-only --format elf`, makedumpfile with -E'
const fromQemu =
  'load it in a QEMU (-incoming, loadvm, virsh restore) and write an ELF core there: dump-guest-memory, `virsh dump --memory-only`'
const fromWindows =
  'convert it to a raw image with Volatility: layerwriter of version 3, imagecopy of version 2'
const noMemory = 'it holds a disk, not memory: take an image of the memory of the machine'

export const knownFormats: readonly KnownFormat[] = [
  // Dumps of kernels
  format('a kdump-compressed dump', asElf, text('KDUMP   ')),
  format('a diskdump dump', asElf, text('DISKDUMP')),
  format(
    'a flattened dump of makedumpfile',
    `\`makedumpfile -R NEW < FILE\` puts it in order; if it is compressed then, ${asElf}`,
    text('makedumpfile\0\0\0\0'),
  ),
  format('an LKCD dump', asElf, hex('ed238f61730119a8')),
  format(
    'a memory dump of Windows (64 bits)',
    `${fromWindows}; or dump-guest-memory of QEMU without -w`,
    text('PAGEDU64'),
  ),
  format(
    'a memory dump of Windows (32 bits)',
    `${fromWindows}; or dump-guest-memory of QEMU without -w`,
    text('PAGEDUMP'),
  ),
  format(
    'a minidump',
    'it holds parts of one process: take a core of it with `gcore PID`',
    hex('4d444d50 93a7'),
  ),
  format('a Mach-O file', 'take an ELF core, or a raw image', hex('cffaedfe'), hex('cefaedfe')),
  // Sleeping machines
  format(
    'a hibernation file of Windows',
    fromWindows,
    ...['hibr', 'HIBR', 'wake', 'WAKE', 'rstr', 'RSTR'].map((magic) => text(magic)),
  ),
  format(
    'swap space of Linux, perhaps with a hibernated system',
    'it is no image of memory: take one of the running machine, with LiME or AVML',
    ...['SWAPSPACE2', 'SWAP-SPACE', 'S1SUSPEND\0', 'S2SUSPEND\0', 'ULSUSPEND\0', 'LINHIB0001'].map((magic) =>
      text(magic, 4086),
    ),
  ),
  // Saved and migrated machines
  format(
    'a saved machine of libvirt',
    '`virsh restore FILE`, then `virsh dump --memory-only DOMAIN CORE`',
    text('LibvirtQemudSave'),
  ),
  format(
    'a machine that libvirt did not finish saving',
    'save it again; `virsh dump --memory-only` writes an ELF core',
    text('LibvirtQemudPart'),
  ),
  format('a migration stream of QEMU', fromQemu, text('QEVM')),
  format(
    'a saved machine of Xen',
    '`xl restore FILE`, then take an image within the machine, with LiME or AVML',
    text('Xen saved domain'),
    text('LibxlFmt'),
    text('LinuxGuestRecord'),
    hex('ffffffffffffffff 58454e46'),
  ),
  format(
    'the state of a VMware machine',
    'give the .vmem file that lies beside it; if there is none, vmss2core converts it',
    ...['d0bed2be', 'd1bad1ba', 'd2bed2be', 'd3bed3be'].map((magic) => hex(magic)),
  ),
  format(
    'a saved machine of VirtualBox',
    'start it and write an ELF core: `VBoxManage debugvm NAME dumpvmcore --filename CORE`',
    text('\x7fVirtualBox SavedState'),
  ),
  format(
    'the device state of a Firecracker snapshot',
    'give its memory file (mem_file_path)',
    hex('0000648684191007'),
    hex('0000aaaa84191007'),
  ),
  format('an image file of CRIU', 'give the pages-N.img beside it', hex('19435654'), hex('40591055')),
  // Memory in containers
  format(
    'a compressed image of AVML',
    '`avml-convert FILE NEW` writes it uncompressed, which is read',
    hex('41564d4c 02000000'),
  ),
  format(
    'an image of EWF (EnCase)',
    '`ewfexport -f raw FILE` writes a raw image',
    hex('455646090d0aff00'),
    hex('4c5646090d0aff00'),
  ),
  format(
    'an archive of Fastdump (HPAK)',
    'extract the image of memory with Volatility 2 (hpakextract)',
    text('HPAK'),
  ),
  format('a backup of Proxmox', '`vma extract FILE FOLDER`', text('VMA\0')),
  // Disks
  format(
    'a qcow or qcow2 disk',
    `${noMemory}; if it holds a snapshot with memory, ${fromQemu}`,
    hex('514649fb'),
  ),
  format('a QED disk', noMemory, text('QED\0')),
  format('a VMDK disk', noMemory, text('KDMV'), text('COWD'), text('# Disk DescriptorFile')),
  format('a VDI disk', noMemory, hex('7f10dabe', 64)),
  format('a VHD disk', noMemory, text('conectix')),
  format('a VHDX disk', noMemory, text('vhdxfile')),
  format('a Parallels disk', noMemory, text('WithoutFreeSpace'), text('WithouFreSpacExt')),
  format('a LUKS volume', noMemory, hex('4c554b53babe')),
  format('a disk with a partition table', noMemory, text('EFI PART', 512)),
  format('a sparse disk of Android', noMemory, hex('3aff26ed')),
  format('a squashfs file system', noMemory, text('hsqs')),
  // Packed files
  packed('a gzip file', '`gzip -dc FILE > NEW`', {
    at: 0,
    bytes: Buffer.from('1f8b0800', 'hex'),
    mask: Buffer.from('ffffffe0', 'hex'),
  }),
  packed('a zstd file', '`zstd -d FILE -o NEW`', hex('28b52ffd')),
  packed('a zstd or lz4 file', '`zstd -d FILE -o NEW` or `lz4 -dc FILE > NEW`', {
    at: 0,
    bytes: Buffer.from('502a4d18', 'hex'),
    mask: Buffer.from('f0ffffff', 'hex'),
  }),
  packed('an xz file', '`xz -dc FILE > NEW`', hex('fd377a585a00')),
  packed('an lzma file', '`lzma -dc FILE > NEW`', {
    at: 0,
    bytes: Buffer.from('5d00000000ffffffffffffffff', 'hex'),
    mask: Buffer.from('ffffff0000ffffffffffffffff', 'hex'),
  }),
  packed(
    'a bzip2 file',
    '`bzip2 -dc FILE > NEW`',
    ...['314159265359', '177245385090'].map((block) => ({
      at: 0,
      bytes: Buffer.from(`425a6830${block}`, 'hex'),
      mask: Buffer.from('fffffff0ffffffffffff', 'hex'),
    })),
  ),
  packed('an lz4 file', '`lz4 -dc FILE > NEW`', hex('04224d18'), hex('02214c18')),
  packed('an lzop file', '`lzop -dc FILE > NEW`', hex('894c5a4f000d0a1a0a')),
  packed('an lzip file', '`lzip -dc FILE > NEW`', hex('4c5a495001')),
  packed('an lrzip file', '`lrzip -d FILE`', text('LRZI\0')),
  packed('a snappy file', '`snzip -dc FILE > NEW`', hex('ff060000 734e61507059')),
  packed('a zip archive', '`unzip FILE`', hex('504b0304'), hex('504b0506'), hex('504b0708')),
  packed('a tar archive', '`tar -xf FILE`', text('ustar\x0000', 257), text('ustar  \0', 257)),
  packed('a 7z archive', '`7z x FILE`', hex('377abcaf271c')),
  packed('a rar archive', '`unrar x FILE`', hex('526172211a07')),
  packed('a cpio archive', '`cpio -i < FILE`', text('070701'), text('070702'), text('070707')),
  packed('an ar archive', '`ar x FILE`', text('!<arch>\n')),
  packed('an encrypted file of OpenSSL', '`openssl enc -d -in FILE -out NEW`', text('Salted__')),
  packed('an encrypted file of age', '`age -d FILE > NEW`', text('age-encryption.org/')),
  // Our own
  format('a trace of subpage', '`subpage report FILE` reads it', text('SPTRACE\n')),
]

/** @param start the first `startBytes` bytes of a file, or all of it */
export function formatOf(start: Uint8Array): KnownFormat | undefined {
  return knownFormats.find(({ magics }) => magics.some((magic) => matches(start, magic)))
}

function matches(start: Uint8Array, { at, bytes, mask }: Magic): boolean {
  if (start.length < at + bytes.length) return false
  return bytes.every((byte, i) => ((start[at + i]! ^ byte) & (mask?.[i] ?? 0xff)) === 0)
}

/** @throws SubpageError IMAGE_MALFORMED when the file is known to be something else than memory */
export function refuseKnown(path: string, start: Uint8Array): void {
  const known = formatOf(start)
  if (known)
    throw new SubpageError('IMAGE_MALFORMED', `${path} is ${known.name}, not raw memory: ${known.remedy}`)
}
