"""Images per second from a folder and from S3, by how far they are read ahead, in one run.

    python -m tests.benchmarks.bench_reading --images 48 --latency-ms 30 --model-ms 40

The client is the real one; the server, in a process of its own, knows nothing but GET and answers
after the latency of a network, so that it costs next to no processor time (moto would cost more
than the reader). Two figures per depth: as fast as the images come, and the share of the time in
which a model that takes `--model-ms` per image would have been at work.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.images import ImageLimits, decode_image, encode_jpeg, read_ahead, read_image_bytes

DEPTHS = (1, 2, 4, 8, 16, 32)
BUDGET_BYTES = 512 * 1024 * 1024


def make_photo(seed: int, height: int, width: int) -> bytes:
    """Return a JPEG with shapes of all sizes, about as hard to pack as a photo."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (4, 16, 64, 256):
        noise = generator.normal(0, 22, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return encode_jpeg(np.clip(image + 128, 0, 255).astype(np.uint8), quality=90)


def serve(photos: Sequence[bytes], latency_seconds: float, ready: Connection) -> None:
    """Answer GET /photos/<number>.jpg, each after the latency; send the server's address."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                number = int(head.split(b" ", 2)[1].rpartition(b"/")[2].removesuffix(b".jpg"))
                photo = photos[number % len(photos)]
                await asyncio.sleep(latency_seconds)
                writer.write(
                    b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n' % len(photo)
                )
                writer.write(photo)
                await writer.drain()

    async def run() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        ready.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(run())


def images_per_second(uris: Sequence[str], depth: int, size: int, model_seconds: float) -> float:
    """Read and decode all images at a depth; the consumer takes `model_seconds` for each."""
    limits = ImageLimits()

    def read(uri: str) -> NDArray[np.uint8]:
        return decode_image(read_image_bytes(uri, limits), limits)

    began = time.perf_counter()
    ahead = read_ahead(
        uris, read, depth=depth, size_bytes=lambda uri: size, budget_bytes=BUDGET_BYTES
    )
    for _ in ahead:
        time.sleep(model_seconds)
    return len(uris) / (time.perf_counter() - began)


def main() -> None:
    """Print the table's rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2250)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--model-ms", type=float, default=40)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    # A few different photos are enough: nothing between here and the disk knows them apart.
    originals = [make_photo(seed, given.height, given.width) for seed in range(4)]
    photos = [originals[i % len(originals)] for i in range(given.images)]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(originals, given.latency_ms / 1000, sender), daemon=True
    )
    process.start()
    os.environ["MASKWHEEL_S3_ENDPOINT"] = receiver.recv()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number:04d}.jpg") for number in range(given.images)]
        for path, photo in zip(paths, photos, strict=True):
            path.write_bytes(photo)
        places = {
            "folder": [str(path) for path in paths],
            "S3": [f"s3://photos/{path.name}" for path in paths],
        }
        size = 3 * given.height * given.width * 2
        mean_kb = sum(map(len, photos)) / len(photos) / 1000
        print(
            f"{given.images} JPEGs of {given.width}x{given.height}, {mean_kb:.0f} kB; requests "
            f"take {given.latency_ms:.0f} ms longer; the model takes {given.model_ms:.0f} ms"
        )
        print("| place | what | " + " | ".join(f"depth {depth}" for depth in DEPTHS) + " |")
        for place, uris in places.items():
            images_per_second(uris[:4], 2, size, 0)  # connections, imports
            fast = [images_per_second(uris, depth, size, 0) for depth in DEPTHS]
            model_seconds = given.model_ms / 1000
            busy = [
                images_per_second(uris, depth, size, model_seconds) * model_seconds
                for depth in DEPTHS
            ]
            print(f"| {place} | images/s | " + " | ".join(f"{rate:.1f}" for rate in fast) + " |")
            print(f"| {place} | model busy | " + " | ".join(f"{b:.0%}" for b in busy) + " |")
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
