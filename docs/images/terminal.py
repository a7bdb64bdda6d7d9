#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A picture of a terminal: the lines on standard input, as `tmux capture-pane -p` prints them, as SVG on standard output."""

import sys
from xml.sax.saxutils import escape

CHARACTER, LINE, MARGIN = 8.4, 18, 12

lines = [line.rstrip() for line in sys.stdin]
while lines and not lines[-1]:
    lines.pop()
width = max(map(len, lines), default=0) * CHARACTER + 2 * MARGIN
height = len(lines) * LINE + 2 * MARGIN
print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" font-family="monospace" font-size="14">')
print('<rect width="100%" height="100%" rx="6" fill="#1e1e1e"/>')
for number, line in enumerate(lines):
    colour = "#ffffff" if line.startswith("$") else "#c8c8c8"
    print(f'<text x="{MARGIN}" y="{MARGIN + (number + 0.75) * LINE:.0f}" fill="{colour}" xml:space="preserve">{escape(line)}</text>')
print("</svg>")
