# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# A machine under software emulation whose disk is served by the plugin. Sourced after scenarios.bash.
#
#   make_guest                  kernel and initramfs in $guest, once for each build directory; says why it cannot
#   serve IMAGE PARAMETER...    nbdkit on ./sock, its number in $server
#   boot CASE,CASE... [ARGS]    QEMU in the background: ./console has what the guest says
#   hears PATTERN               waits for a line of the guest's
#   monitor COMMAND             QEMU's answer
#   powered_off                 waits for the end; the guest has said that all was right

guest=$build/guest
# In the order in which they are loaded.
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk)

# The kernel is that of a Debian package, which is unpacked and not installed.
fetch_kernel() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
    [[ -n $package ]] || { echo "no kernel package is known: apt-get update"; return 1; }
    (cd "$guest" && apt-get -q download "$package" >download.log 2>&1 && dpkg -x "$package"*.deb kernel) ||
        { echo "the kernel package cannot be had: $(tail -n 1 "$guest/download.log")"; return 1; }
}

# copied_with_libraries PROGRAM: into the root of the guest.
copied_with_libraries() {
    local file
    for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
        install -D "$file" "$guest/root$file"
    done
}

make_guest() {
    local program module
    [[ ! -e $guest/initramfs ]] || [[ $here/../guest/init -nt $guest/initramfs ]] || return 0
    for program in qemu-system-x86_64 busybox cpio mkfs.ext4; do
        [[ -n $(type -P "$program") ]] || { echo "no $program"; return 1; }
    done
    mkdir -p "$guest"
    [[ -d $guest/kernel/boot ]] || fetch_kernel || return 1
    rm -rf "$guest/root"
    mkdir -p "$guest/root/bin" "$guest/root/lib" "$guest/root"/{dev,proc,sys,tmp,etc}
    cp "$(type -P busybox)" "$guest/root/bin/busybox"
    copied_with_libraries "$(type -P mkfs.ext4)"
    cp /etc/mke2fs.conf "$guest/root/etc/"
    for module in "${modules[@]}"; do
        find "$guest/kernel/lib/modules" -name "$module.ko" -exec cp {} "$guest/root/lib/" \;
        echo "$module.ko"
    done >"$guest/root/modules"
    install "$here/../guest/init" "$guest/root/init"
    (cd "$guest/root" && find . | cpio --quiet -o -H newc) >"$guest/initramfs" || { echo "cpio failed"; return 1; }
}

# Nothing outlives its scenario: called by each first of all.
alone() { trap 'kill -9 ${machine-} ${server-} 2>/dev/null' EXIT; }

serve() {
    rm -f sock
    nbdkit --foreground --unix sock "$build/tools/nbdkit-ploop-plugin.so" "$@" >>server.log 2>&1 &
    server=$!
    waits_for 100 test -S sock || fail "nbdkit: $(cat server.log)"
}

# waits_for TENTHS COMMAND...
waits_for() {
    local i tenths=$1
    shift
    for ((i = 0; i < tenths; i++)); do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}

boot() {
    local cases=$1
    shift
    rm -f monitor
    : >console
    qemu-system-x86_64 -accel tcg -m 256 -nographic -no-reboot -nodefaults -serial file:console -monitor unix:monitor,server=on,wait=off \
        -kernel "$guest"/kernel/boot/vmlinuz-* -initrd "$guest/initramfs" -append "console=ttyS0 quiet panic=-1 no_timer_check acpi=off do=$cases $*" \
        -blockdev driver=nbd,node-name=disk,server.type=unix,server.path=sock,discard=unmap,reconnect-delay=60 \
        -device virtio-blk-pci,drive=disk,werror=stop,rerror=stop >qemu.log 2>&1 &
    machine=$!
}

said() { grep -q "^guest: $1" console; }

# A line that is awaited, or one that says that something is wrong, or no guest any more.
said_or_over() { said "$1" || said wrong || ! kill -0 "$machine" 2>/dev/null; }

hears() {
    waits_for 1800 said_or_over "$1"
    said "$1" || fail "no '$1' from the guest: $(tail -n 5 console qemu.log server.log)"
}

monitor() {
    python3 - "$1" <<'PYTHON'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("monitor")
s.settimeout(60)
def answer():
    text = b""
    while not text.endswith(b"(qemu) "):
        text += s.recv(4096)
    return text.decode()
answer()
s.sendall(sys.argv[1].encode() + b"\n")
print(answer())
PYTHON
}

powered_off() {
    hears end
    waits_for 300 machine_is_over || fail "the machine does not end"
    wait "$machine"
    same "$?" 0 "QEMU: $(cat qemu.log)"
}

machine_is_over() { ! kill -0 "$machine" 2>/dev/null; }

# The server ends without an error, and nothing is wrong with the image.
served_well() {
    kill "$server"
    wait "$server" || fail "nbdkit: $(tail -n 3 server.log)"
    expect 0 ploopctl check "$1"
}
