"""The peer of recovery.py: DDP over gloo under elastic torchrun, a checkpoint every 10 steps. Appends "seconds step" for each step."""

import argparse
import itertools
import os
import time

import torch
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--steps", required=True)
    parser.add_argument("--checkpoint", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(1)
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    step = 0
    if os.path.exists(arguments.checkpoint):
        state = torch.load(arguments.checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    model = DistributedDataParallel(model)
    loss_function = nn.CrossEntropyLoss()
    transform = torchvision.transforms.Compose([torchvision.transforms.Resize((arguments.size, arguments.size)), torchvision.transforms.ToTensor()])
    data = torchvision.datasets.ImageFolder(arguments.train, transform)
    sampler = torch.utils.data.distributed.DistributedSampler(data, seed=1)
    loader = torch.utils.data.DataLoader(data, arguments.batch // world, sampler=sampler, drop_last=True)
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            loss_function(model(images.to(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
            step += 1
            if rank != 0:
                continue
            with open(arguments.steps, "a", encoding="utf-8") as file:
                file.write(f"{time.time()} {step}\n")
            if step % 10 == 0:
                part = arguments.checkpoint + ".part"
                torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
                os.replace(part, arguments.checkpoint)


if __name__ == "__main__":
    main()
