#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a mapped 4 KiB request costs over NBD, through the page cache: nbdkit with this library's plugin, over the POSIX and the
io_uring backend, and nbdkit's own file plugin on a raw file of the same content.

  nbd.sh BUILD_DIR [--json] [--rounds N] [--requests N] [--directory DIR] [--nbdkit-option OPTION]...

The client is `qemu-img bench`, with 1 or 32 requests in flight, reads and overwrites. A round is one run of each server, one
after the other, for each kind of request; the table has the medians of the rounds: CPU time of the server's process per request
(the process's CPU clock), and requests per second. All servers run all the time, idle but for their runs. The ratios are the
medians of the rounds' ratios to the file plugin.
"""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

SIZE = 64 << 20
STEP = 33 * 4096  # not the next block: requests that follow each other lie in different pages
KINDS = [("read QD1", 1, []), ("read QD32", 32, []), ("overwrite QD1", 1, ["-w"]), ("overwrite QD32", 32, ["-w"])]


def cpu_seconds(pid):
    """Of a process, its ended threads too."""
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    def __init__(self, directory, name, arguments):
        self.name = name
        self.socket = os.path.join(directory, name.replace(" ", "-") + ".sock")
        self.process = subprocess.Popen(["nbdkit", "-f", "-U", self.socket] + arguments)
        for _ in range(200):
            if os.path.exists(self.socket):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"nbd: no server: nbdkit {' '.join(arguments)}")

    def run(self, requests, depth, options):
        """CPU in microseconds per request, and requests per second."""
        before = cpu_seconds(self.process.pid)
        command = ["qemu-img", "bench", "-f", "raw", "-t", "none", "-c", str(requests), "-d", str(depth), "-s", "4096", "-S",
                   str(STEP)] + options + ["nbd:unix:" + self.socket]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = float(re.search(r"completed in ([0-9.]+) seconds", said).group(1))
        return (cpu_seconds(self.process.pid) - before) / requests * 1e6, requests / seconds

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def serve(build, directory, options):
    raw, image = os.path.join(directory, "raw"), os.path.join(directory, "image.hds")
    with open(raw, "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    subprocess.run([os.path.join(build, "tools/ploopctl"), "convert", "--from", "raw", "--to", "ploop", raw, image], check=True,
                   stdout=subprocess.DEVNULL)
    plugin = os.path.join(build, "tools/nbdkit-ploop-plugin.so")
    servers = []
    for name, arguments in (("nbdkit file", ["file", raw]),
                            ("ploop posix", [plugin, "image=" + image, "backend=posix"])):
        servers.append(Server(directory, name, options + arguments))
    copy = os.path.join(directory, "uring.hds")
    subprocess.run(["cp", "--sparse=never", raw, copy + ".raw"], check=True)
    subprocess.run([os.path.join(build, "tools/ploopctl"), "convert", "--from", "raw", "--to", "ploop", copy + ".raw", copy],
                   check=True, stdout=subprocess.DEVNULL)
    servers.append(Server(directory, "ploop uring", options + [plugin, "image=" + copy, "backend=uring"]))
    return servers


def measure(servers, rounds, requests):
    """By kind and server: a list of (CPU, requests per second), one for each round."""
    found = {(kind, server.name): [] for kind, _, _ in KINDS for server in servers}
    for round_number in range(rounds + 1):
        for kind, depth, options in KINDS:
            for server in servers:
                cost = server.run(requests, depth, options)
                if round_number:  # the first one warms up
                    found[kind, server.name].append(cost)
    return found


def report(found, servers, as_json):
    peer = servers[0].name
    rows = []
    for kind, _, _ in KINDS:
        for number, what, unit in ((0, "server CPU", "us/request"), (1, "throughput", "requests/s")):
            theirs = [cost[number] for cost in found[kind, peer]]
            for server in servers[1:]:
                ours = [cost[number] for cost in found[kind, server.name]]
                ratio = statistics.median(a / b for a, b in zip(ours, theirs))
                rows.append({"row": "P2n", "what": f"{kind}, buffered, {server.name}: {what}",
                             "ours": round(statistics.median(ours), 2), "peer": round(statistics.median(theirs), 2),
                             "ratio": round(ratio, 3), "unit": unit})
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    print(f"{'':56} {'ours':>10} {peer:>12} {'ratio':>6}")
    for row in rows:
        print(f"{row['what']:56} {row['ours']:10.1f} {row['peer']:12.1f} {row['ratio']:6.2f}  {row['unit']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--directory", help="where the files are made (default: the build directory)")
    parser.add_argument("--nbdkit-option", action="append", default=[], help="for all servers, as --nbdkit-option=--threads=4")
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="bench-nbd.", dir=arguments.directory or arguments.build)
    servers = []
    try:
        servers += serve(arguments.build, directory, arguments.nbdkit_option)
        report(measure(servers, arguments.rounds, arguments.requests), servers, arguments.json)
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(directory)


main()
