/** The name of a guest's disk: also its serial number, by which the guest finds it (/dev/disk/by-id/virtio-NAME). */
export const diskNamePattern = '^[A-Za-z0-9][A-Za-z0-9_-]{0,15}$'
