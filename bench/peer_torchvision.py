"""The peer: torchvision's ImageFolder over PIL through a DataLoader in the process, one thread. Prints one line of JSON."""
import argparse
import json
import time

import torch
from torchvision import datasets, transforms


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--dump", help="a file for the floats of the first pass, in order of the paths")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transform = transforms.Compose([transforms.Resize((arguments.size, arguments.size), antialias=True), transforms.ToTensor()])
    data = datasets.ImageFolder(arguments.folder, transform)
    data.samples.sort()
    loader = torch.utils.data.DataLoader(data, batch_size=arguments.batch, num_workers=0)
    dump = open(arguments.dump, "wb") if arguments.dump else None
    wall, cpu, images = time.monotonic(), time.process_time(), 0
    for number in range(arguments.passes):
        for batch, _ in loader:
            images += len(batch)
            if dump and number == 0:
                dump.write(batch.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    print(json.dumps({"images": images, "wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
