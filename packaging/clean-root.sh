# shellcheck shell=bash
# Make clean roots of Debian to try the package in. For scripts of root, which source this file and
# have a function `fail`.

MIRROR=${MIRROR:-http://deb.debian.org/debian}

# make_base FOLDER ARCH SUITE: the base system, unless the folder is there. For another processor the
# kernel must be able to start its programs (qemu-user-static, binfmt-support).
make_base() {
    local base=$1 log
    [ -d "$base" ] && return
    log=$(mktemp)
    mkdir -p "$(dirname "$base")"
    # Under its name only when it is whole.
    debootstrap --variant=minbase --arch "$2" "$3" "$base.new" "$MIRROR" >"$log" 2>&1 ||
        { tail "$log" >&2 && rm "$log" && fail "debootstrap failed."; }
    rm "$log"
    mv "$base.new" "$base"
}

# make_root BASE ROOT: a copy of the base system that programs can run in.
make_root() {
    cp -a "$1" "$2"
    cp --remove-destination /etc/resolv.conf "$2/etc/resolv.conf"
    mount -t proc proc "$2/proc"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$2/dev/pts"
    # No program of this root may start a service: it would be one of the computer around it.
    printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
    chmod 755 "$2/usr/sbin/policy-rc.d"
}

# make_newer PACKAGE FOLDER OUTPUT: the same package with a later version, unpacked in FOLDER on the way.
make_newer() {
    dpkg-deb -R "$1" "$2"
    sed -i 's/^Version: .*/&.1/' "$2/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$2" "$3" >/dev/null
}

# remove_roots WORK: unmount what is mounted below a folder, and remove it.
remove_roots() {
    local place
    for place in "$1"/*/proc "$1"/*/sys "$1"/*/dev/pts; do
        if mountpoint -q "$place"; then umount -l "$place"; fi
    done
    rm -rf --one-file-system "$1"
}
