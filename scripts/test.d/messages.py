#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The form of the messages that ploopctl, the plugin and the libraries print, as HACKING.md states it: one line, "program: subject: what is
wrong", each part beginning in lower case unless it begins with a name; no full stop; options bare (--base, image=), what a user gave in
single quotes. Looks at the texts in calls of the functions below. Prints what deviates; exits 1 then.

  messages.py [list]      list: print all messages
"""
import re
import subprocess
import sys

# These take a message's text, or a part of one.
CALLS = re.compile(r"\b(complain|complain_usage|warn|fault|nbdkit_error|load_log|dev_log|fail|reject|fault_of_guid|header_fault)\s*\(")
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
# What may begin a message although its first letter is large: names of the format's fields and of the XML's elements.
NAMES = re.compile(r"[A-Z]{2,}|(Blocksize|Disk_size|Type|TopGUID)\b")
RULES = [
    (re.compile(r"[.!]$"), "ends in a full stop"),
    (re.compile(r"\\n"), "has more than one line"),
    (re.compile(r"(^|: )[A-Z]"), "begins with a large letter"),
    (re.compile(r"\\\"|`"), "has quotes other than ''"),
    (re.compile(r"'--|'[a-z-]+='"), "quotes an option"),
    (re.compile(r"  "), "has two spaces"),
    (re.compile(r"(?<!-)\b(raw-base|after-sync-failure|max-age|backend|recover|direct|dir)(?=: )"), "names a parameter without its ="),
    (re.compile(r"\b([a-z]+n't|[Pp]lease|[Ee]rror:|[Ff]ailed to|unable to)\b"), "has words that say nothing, or are short for others"),
    (re.compile(r"\berror %d|errno"), "has a number for an error's text"),
]


def body(text, at):
    """From the bracket at `at` to the one that closes it."""
    depth, inside, end = 0, False, at
    while end < len(text):
        char = text[end]
        if inside:
            end += char == "\\"
            inside = char != '"'
        elif char == '"':
            inside = True
        elif char in "()":
            depth += 1 if char == "(" else -1
            if depth == 0:
                break
        end += 1
    return text[at:end]


def texts(call):
    """The literals that stand together are one text; PRIu64 and its like stand for a number."""
    call = re.sub(r'"\s*PRI[uxd]\d+\s*"', "u", call)
    call = re.sub(r'"\s*PRI[uxd]\d+', 'u"', call)
    for group in re.findall(r'(?:"(?:[^"\\]|\\.)*"\s*)+', call):
        yield "".join(LITERAL.findall(group))


def main(argv):
    out = subprocess.run(["git", "ls-files", "-z", "src/*.c", "bundle/*.c", "tools/*.c"], stdout=subprocess.PIPE, check=True)
    count, wrong = 0, []
    for path in filter(None, out.stdout.decode().split("\0")):
        with open(path, encoding="utf-8") as source:
            text = source.read()
        for call in CALLS.finditer(text):
            for message in texts(body(text, call.end() - 1)):
                if not re.search(r"[a-z]{2}", message):
                    continue
                count += 1
                if argv[1:] == ["list"]:
                    print("%s: %s" % (path, message))
                plain = NAMES.sub("x", message)
                wrong += ["%s: '%s' %s" % (path, message, why) for rule, why in RULES if rule.search(plain)]
    for line in wrong:
        print(line)
    print("%d texts of messages, %d deviate" % (count, len(wrong)))
    return 1 if wrong or count < 200 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
