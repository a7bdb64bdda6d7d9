#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ploopctl in a real terminal, tmux: what stands on the screen.
#
#   terminal.sh BUILD_DIRECTORY [SCENARIO...]
#
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

# screen COLUMNS COMMAND: the screen's lines when the command has ended, in file screen.
screen() {
    local tmux=(tmux -L "ploop-$$" -f /dev/null) i
    rm -f ended
    TERM=xterm "${tmux[@]}" new-session -d -x "$1" -y 20 "cd '$PWD' && PS1='$ ' bash --norc --noprofile" || fail tmux
    "${tmux[@]}" send-keys "$2; touch ended" Enter
    for ((i = 0; i < 600; i++)); do
        [[ ! -e ended ]] || break
        sleep 0.1
    done
    sleep 0.2
    "${tmux[@]}" capture-pane -p >screen
    "${tmux[@]}" kill-server
    [[ -e ended ]] || fail "$2 does not end: $(cat screen)"
}

# In a window of any width a bar is one line, drawn over and over, with rate and time left.
test_a_bar_fits_the_window() {
    local columns
    head -c 24M /dev/urandom >a.raw
    for columns in 120 80 50 20; do
        screen $columns "clear; ploopctl convert --from raw --cluster 64K a.raw d$columns.hds"
        same "$(grep -c '^\[' screen)" 1 "bars in a window of $columns columns: $(cat screen)"
        same "$(grep -c 'MiB\|left\|%' screen)" 1 "lines of the bar in a window of $columns columns: $(cat screen)"
        ((columns < 50)) || grep -q '^\[#*\] 100% of 24.0 MiB' screen || fail "$(cat screen)"
        ((columns < 80)) || grep -q '100% of 24.0 MiB, [0-9.]* MiB/s, 0:00 left' screen || fail "$(cat screen)"
    done
}

run_scenarios "${@:2}"
