"""The peer of lockstep-allreduce-bench: torch.distributed's all_reduce over gloo, same sizes, 2 processes with 1 thread each.

Prints one line of JSON: median microseconds of a call by size in bytes, as rank 0 sees it.
"""
import argparse
import json
import os
import socket
import statistics
import time

import torch
import torch.distributed


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def time_calls(size, ranks, seconds):
    tensor = torch.empty(size // 4, dtype=torch.float32)
    flag = torch.zeros(1)
    calls = max(20, min(2000, int(seconds * 1e9 / (size + (1 << 20)))))
    times = []
    for _ in range(calls):
        tensor.fill_(1.0)
        torch.distributed.all_reduce(flag)  # both begin together
        start = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        times.append(time.perf_counter() - start)
        assert tensor[0] == ranks and tensor[-1] == ranks
    return statistics.median(times[calls // 5:]) * 1e6


def run(rank, arguments, port):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=arguments.ranks)
    result = {str(size): time_calls(size, arguments.ranks, arguments.seconds) for size in arguments.sizes}
    if rank == 0:
        print(json.dumps(result), flush=True)
    torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")],
                        default=[1 << 10, 64 << 10, 1 << 20, 100 << 20])
    parser.add_argument("--seconds", type=float, default=1, help="roughly, for each size")
    arguments = parser.parse_args()
    torch.multiprocessing.spawn(run, args=(arguments, free_port()), nprocs=arguments.ranks)


if __name__ == "__main__":
    main()
