# SPDX-License-Identifier: MIT
# Completion of ploopctl for bash. Commands and options are those that --help shows.
# shellcheck shell=bash

_ploopctl()
{
    local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]-} words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words=$(ploopctl --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')" --help --version"
    elif [[ $word == -* ]]; then
        words=$(ploopctl "$command" --help 2>/dev/null | sed -n '/^ \{2,6\}-/s/.*\(--[a-z0-9-]*\).*/\1/p')
    elif [[ $last == --repair ]]; then
        words="leaks unclean cut all"
    elif [[ $last == --from || $last == --to ]]; then
        words="raw ploop bundle"
    elif [[ $command == bundle ]] && ((COMP_CWORD == 2)); then
        words="$(ploopctl bundle --help 2>/dev/null | sed -n 's/^\([a-z]*\)  .*/\1/p')"
    fi
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -o filenames -F _ploopctl ploopctl
