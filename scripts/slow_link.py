"""A network link on which packets take time or are lost: slow_link.py SWITCH_PORT PID INTERFACE DELAY_MS LOSS_PERCENT

Joins two virtual network cards: SWITCH_PORT here, and INTERFACE in the network namespace of process PID. Each way,
packets arrive DELAY_MS later, and LOSS_PERCENT of them are lost. Prints `ready`, and works until it is killed, which
removes both cards. Linux's own netem does the same, but is missing from many kernels of virtual machines.

The cards hand over up to 64 KB of a TCP stream at once, as real cards take it, without which Python would be too slow
for 1 Gbit/s. Such a piece is lost if any of its packets is: as often as single packets would be, but more at a time.
"""

import collections
import ctypes
import fcntl
import os
import random
import struct
import sys
import threading
import time

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
TAP, NO_PI, VNET_HDR = 2, 0x1000, 0x4000
CSUM, TSO4, TSO6 = 1, 2, 4
HEADER = struct.Struct("<BBHHHH")  # struct virtio_net_hdr


def card(name):
    """Creates a network card in the current namespace; returns its other side."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI | VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, CSUM | TSO4 | TSO6)
    return fd


def packets(piece):
    _, _, header, size, _, _ = HEADER.unpack_from(piece)
    return max(1, -(-(len(piece) - HEADER.size - header) // size)) if size else 1


def forward(source, sink, delay, loss):
    """Reads pieces and drops some; another thread writes the others when they are due."""
    queue, filled = collections.deque(), threading.Semaphore(0)

    def write():
        while True:
            filled.acquire()
            due, piece = queue.popleft()
            time.sleep(max(0, due - time.monotonic()))
            try:
                os.write(sink, piece)
            except OSError:
                pass  # that card is down

    threading.Thread(target=write, daemon=True).start()
    while True:
        piece = os.read(source, 1 << 17)
        if random.random() < (1 - loss) ** packets(piece):
            queue.append((time.monotonic() + delay, piece))
            filled.release()


def main():
    port, pid, interface, delay_ms, loss_percent = sys.argv[1:]
    near = card(port)
    with open(f"/proc/{pid}/ns/net") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
            sys.exit(f"slow_link.py: cannot enter the network of process {pid}: {os.strerror(ctypes.get_errno())}")
    far = card(interface)
    settings = float(delay_ms) / 1e3, float(loss_percent) / 100
    threading.Thread(target=forward, args=(far, near, *settings), daemon=True).start()
    print("ready", flush=True)
    forward(near, far, *settings)


main()
