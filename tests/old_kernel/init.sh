#!/bin/busybox sh
# The first process of the emulated machine: modules, the host's files read-only, a place to write,
# then /command in there. The last line on the console is what boot.py looks for.

busybox mkdir -p /proc /sys /dev /host
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in $(busybox cat /modules/order); do
    busybox insmod "/modules/$module" || echo "old-kernel: cannot load $module"
done
busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /host &&
    busybox mount -t proc proc /host/proc &&
    busybox mount -t sysfs sysfs /host/sys &&
    busybox mount -t devtmpfs devtmpfs /host/dev &&
    busybox mkdir -p /host/dev/shm &&
    busybox mount -t tmpfs tmpfs /host/dev/shm &&
    busybox mount -t tmpfs tmpfs /host/run &&
    busybox cp /command /host/run/command &&
    busybox chroot /host /bin/sh /run/command
echo "old-kernel: exit $?"
busybox poweroff -f
