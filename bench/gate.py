#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The regression gate: measure the figures for which bench/limits has a gate, and fail when one is above it or is missing. The build
directory is BENCH_BUILD. Prints a line for each figure."""
import sys

import measure


def main():
    limits = [limit for limit in measure.limits() if limit["gate"] != "-"]
    rows = [row for row in measure.ROWS if any(limit["row"] == row for limit in limits)]
    every = measure.limits()
    figures, failed, judged = [], 0, set()
    # What "served" measures has no gate, and takes long.
    for name in sorted({name for row in rows for name in measure.MEASURERS[row] if name != "served"}):
        found, fault = measure.measure(name, [row for row in rows if name in measure.MEASURERS[row]])
        figures += found
        if fault:
            print("FAILED", fault)
            failed += 1
    for figure in figures:
        limit = measure.limit_of(figure, every)
        if not limit or limit["gate"] == "-":
            continue
        judged.add((limit["row"], limit["what"]))
        kept = measure.keeps(figure[limit["kind"]], limit["gate"])
        print("kept" if kept else "FAILED",
              f"{figure['row']} {figure['what']}: {limit['kind']} {figure[limit['kind']]:.5g}, limit {limit['gate']}")
        failed += not kept
    for limit in limits:
        if (limit["row"], limit["what"]) not in judged:
            print("FAILED", f"{limit['row']} {limit['what']}: not measured")
            failed += 1
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
