#!/bin/sh
# The first process of a user-mode Linux: it makes a system of the machine's files, does one job, and ends the kernel.
# From the kernel's command line: OUTSIDE, a folder of the machine that is joined to /run/outside; in it `job`, a script,
# and `said`, where its standard output goes. LIFETIME_S ends all of it.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

power_off() {
    echo o >/proc/sysrq-trigger
    sleep 60
}

mount -t proc proc /proc
trap power_off EXIT
modules=/usr/lib/uml/modules/$(uname -r)

# All that is written stays in memory: the machine's own files are below, and nothing leads there but reading.
memory=/sys/kernel
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=100% tmpfs "$memory"
mkdir "$memory/written" "$memory/work" "$memory/root"
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mount -t overlay -o "lowerdir=/,upperdir=$memory/written,workdir=$memory/work" overlay "$memory/root"
cd "$memory/root"
mkdir -p .below
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
pivot_root . .below
umount -l /.below
mkdir -p /dev/pts /dev/shm /lib/modules
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount --bind "${modules%/*}" /lib/modules
[ -e "/lib/modules/$(uname -r)/modules.dep" ] || depmod -a
# What the lab sets parameters of before it is used; all else comes by itself when it is asked for.
modprobe -a ipv6 nf_conntrack br_netfilter sctp
ip link set lo up

mkdir /run/outside
mount -t hostfs -o "$OUTSIDE" hostfs /run/outside

# Whatever hangs: it ends.
(sleep "$LIFETIME_S" && echo "ended after $LIFETIME_S s" >&2 && power_off) &

sh /run/outside/job </dev/null >>/run/outside/said || echo "the job ended with exit code $?" >&2
sync
