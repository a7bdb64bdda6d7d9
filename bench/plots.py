# SPDX-License-Identifier: MIT
"""The plots of bench/run: what gnuplot makes of its figures. Each is left out where the run did not measure what it shows."""
import os
import subprocess
import tempfile

HEAD = """set terminal svg size 1000,460 font "sans-serif,11" background "white"
set style fill solid 0.9 border -1
set style data histograms
set boxwidth 0.9 relative
set grid ytics lc rgb "#cccccc"
set key outside bottom center horizontal
set bmargin 6
set offsets 0,0,graph 0.08,0
set yrange [0:*]
"""


def of(figures, row, what, field):
    for figure in figures:
        if figure["row"] == row and figure["what"] == what and figure.get(field) is not None:
            return figure[field]
    return None


def gnuplot(script, data, output):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "data")
        with open(path, "w", encoding="utf-8") as out:
            out.write(data)
        # gnuplot writes to its stdout and reads a relative name: no path gets into the SVG.
        with open(output, "wb") as svg:
            subprocess.run(["gnuplot"], input=script.encode(), cwd=directory, stdout=svg, check=True)


def instructions(figures, directory):
    bars = [
        ("floor", of(figures, "P0", "floor: read, a run for each 32", "ours")),
        ("the library,\\nread", of(figures, "P1", "read, a run for each 32, shared library", "ours")),
        ("the library,\\noverwrite", of(figures, "P1", "overwrite, a run for each 32, shared library", "ours")),
        ("a process,\\nio\\\\_uring", of(figures, "P1b", "mapped read, io_uring, QD32; peer: QEMU parallels", "ours")),
        ("a process,\\nQEMU parallels", of(figures, "P1b", "mapped read, io_uring, QD32; peer: QEMU parallels", "peer")),
    ]
    if None in (value for _, value in bars):
        return
    data = "\n".join(f'"{name}" {value}' for name, value in bars)
    gnuplot(HEAD + """set title "Instructions for one mapped request of 4 KiB"
unset key
plot "data" using 2:xtic(1) lc rgb "#3b6ea5", "" using 0:2:2 with labels offset 0,0.7
""", data, os.path.join(directory, "bench-instructions.svg"))


def throughput(figures, directory):
    workloads = [
        ("P2", "direct read QD1", "read\\n4 KiB, QD1"), ("P2", "direct read QD32", "read\\n4 KiB, QD32"),
        ("P2", "direct overwrite QD32", "overwrite\\n4 KiB, QD32"),
        ("P3", "random 4 KiB QD32, no flush", "new clusters\\n4 KiB, QD32"),
        ("P3", "random 4 KiB QD32, a flush every 32", "new clusters\\na flush every 32"),
        ("P7", "sequential 64 KiB QD1", "sequential\\n64 KiB, QD1"), ("P7", "sequential 64 KiB QD16", "sequential\\n64 KiB, QD16"),
    ]
    lines = []
    for row, what, label in workloads:
        cells = [of(figures, row, f"{what}, {backend}, throughput", "ratio") for backend in ("io_uring", "posix")]
        cells += [of(figures, row, f"QEMU {driver} to QEMU raw: {what}, throughput", "ratio") for driver in ("parallels", "qcow2")]
        lines.append(f'"{label}" ' + " ".join("-" if cell is None else f"{cell:.3f}" for cell in cells))
    if all("- - - -" in line for line in lines):
        return
    gnuplot(HEAD + """set title "Throughput past the page cache, as a part of what a raw file gives"
set datafile missing "-"
set arrow from graph 0,first 1 to graph 1,first 1 nohead lw 1.5 lc rgb "black"
plot "data" using 2:xtic(1) title "libploop, io\\\\_uring" lc rgb "#3b6ea5", "" using 3 title "libploop, POSIX" lc rgb "#9dbfe0", \\
     "" using 4 title "QEMU parallels" lc rgb "#d98236", "" using 5 title "QEMU qcow2" lc rgb "#f0c9a0"
""", "\n".join(lines), os.path.join(directory, "bench-throughput.svg"))


def draw(figures, directory):
    instructions(figures, directory)
    throughput(figures, directory)
