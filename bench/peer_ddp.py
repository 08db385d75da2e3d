"""The peer: PyTorch DistributedDataParallel over gloo, one thread a process, channels-last. Prints one line of JSON."""
import argparse
import json
import os
import socket
import statistics
import time

import torch
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build(architecture, classes):
    names = {"MobileNetV2": torchvision.models.mobilenet_v2, "ResNet50": torchvision.models.resnet50}
    return names[architecture](weights=None, num_classes=classes)


def train(rank, arguments, port):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(arguments.replicas))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=arguments.replicas)
    torch.manual_seed(1)
    model = build(arguments.architecture, arguments.classes).to(memory_format=torch.channels_last)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    loss_function = nn.CrossEntropyLoss()
    transform = torchvision.transforms.Compose([torchvision.transforms.Resize((arguments.size, arguments.size)),
                                                torchvision.transforms.ToTensor()])
    data = torchvision.datasets.ImageFolder(arguments.train, transform)
    sampler = torch.utils.data.distributed.DistributedSampler(data, seed=1)
    loader = torch.utils.data.DataLoader(data, arguments.batch // arguments.replicas, sampler=sampler, num_workers=1, drop_last=True,
                                         persistent_workers=True, multiprocessing_context="fork")
    times, done, epoch = [], 0, 0
    while done < arguments.steps:
        sampler.set_epoch(epoch)
        epoch += 1
        for images, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(images.to(memory_format=torch.channels_last)), labels)
            loss.backward()
            optimizer.step()
            times.append(time.monotonic())
            done += 1
            if done == arguments.steps:
                break
    if rank == 0:
        counted = times[arguments.warmup - 1:]
        steps = [after - before for before, after in zip(counted, counted[1:])]
        print(json.dumps({"images_per_second": arguments.batch * len(steps) / sum(steps),
                          "median_step_seconds": statistics.median(steps), "steps": len(steps)}), flush=True)
    torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--replicas", type=int, default=2)
    arguments = parser.parse_args()
    torch.multiprocessing.spawn(train, (arguments, free_port()), nprocs=arguments.replicas)


if __name__ == "__main__":
    main()
