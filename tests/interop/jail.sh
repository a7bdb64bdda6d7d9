#!/bin/bash
# SPDX-License-Identifier: MIT
#
# In a jail (examples/jail.c), as strace sees it: after the chroot nothing is opened; after the filter only those calls come that the
# guide lists, at most 25 of them, and all that the guide lists are in the filter; the library has at most eight threads, and each
# names itself. Then a device with threads of its own and one that reads: their names, too.
#
#   jail.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "FAILED: $*"
    tail -n 20 trace
    exit 1
}

# Threads take turns in the trace: a call that is interrupted by another's is two lines.
strace -f -o trace "$build/examples/jail" image.hds >said
grep -q 'by a descriptor alone' said || fail "no jail: $(cat said)"
"$build/tools/ploopctl" check image.hds
[[ -z $(compgen -G '/tmp/ploop-jail-*') ]] || fail "the empty directory is left"

child=$(sed -n 's/^\([0-9]*\) *chroot(.*/\1/p' trace)
[[ $child ]] || fail "no chroot"
sed -n "/^$child *chroot(/,\$p" trace >jailed
! grep -E '^[0-9]+ +(open|openat|creat|execve|socket)\(' jailed | grep -v ENOENT || fail "something was opened in the jail"
sed -n '/PR_SET_SECCOMP/,$p' jailed | grep -v "^$(head -n 1 trace | cut -d' ' -f1) " | tail -n +2 >filtered
! grep -q 'open' filtered || fail "an open under the filter"

# The rows of the table in the guide: | `call` | ... |
# shellcheck disable=SC2016  # no expressions
sed -n 's/^| `\([a-z0-9_]*\)` |.*/\1/p' "$top/docs/guide/jail.md" | sort >listed
sed -n '/^static const int allowed/,/^};/s/^ *SYS_\([a-z0-9_]*\),.*/\1/p' "$top/examples/jail.c" |
    grep -vxE 'fstat|epoll_pwait|ppoll' | sort >in_filter
diff listed in_filter || fail "the guide and the example list other calls"
count=$(wc -l <listed)
((count <= 25)) || fail "$count calls"
grep -oE '^[0-9]+ +[a-z0-9_]+\(' filtered | sed 's/^[0-9]* *//; s/($//' | sort -u >called
beyond=$(comm -13 listed called)
[[ ! $beyond ]] || fail "not listed: $beyond"
(($(wc -l <called) >= 15)) || fail "only $(wc -l <called) calls seen"

threads=$(grep -c 'clone3(.*= [0-9]\|<... clone3 resumed.*= [0-9]' filtered)
names=$(grep -c 'prctl(PR_SET_NAME, "ploop-io/[0-7]"' filtered)
((threads >= 1 && threads <= 8 && names == threads)) || fail "$threads threads, $names names"
echo "$count calls listed, $(wc -l <called) called; $threads threads"
