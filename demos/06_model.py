"""A model as one would write it: weights in a nested dict, a loop over layers, methods, an optional argument.

                 +--> attend --> (head 1) --+
x --> normalize -+--> attend --> (head 2) --+--> concatenate --> + x --> feed forward --> ... next layer
                 +--> attend --> (head 3) --+
"""

import asyncio
import time

import numpy as np

import dataflow as flow

LAYERS, HEADS, TOKENS, WIDTH = 4, 3, 256, 192


@flow.op
def attend(x, head, mask=None):
    scores = (x @ head["query"]) @ (x @ head["key"]).T / np.sqrt(WIDTH / HEADS)
    scores = np.exp(scores if mask is None else scores + mask)
    return (scores / scores.sum(axis=1, keepdims=True)) @ (x @ head["value"])


class Encoder:
    @flow.op
    def normalize(self, x):
        return (x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1e-5)

    def block(self, x, layer, mask):  # a plain method: recorded as a part of the body that calls it
        y = self.normalize(x)
        x = x + np.concatenate([attend(y, head, mask) for head in layer["heads"]], axis=1)
        return x + np.maximum(self.normalize(x) @ layer["up"], 0) @ layer["down"]

    @flow.pipeline(tree=("weights",))
    def encode(self, x, weights, mask=None):
        for number, layer in enumerate(weights["layers"]):
            with flow.scope(f"layer{number}"):
                x = self.block(x, layer, mask)
        return {"mean": x.mean(axis=0), "tokens": x}


async def main():
    rng = np.random.default_rng(0)
    sizes = {"query": WIDTH // HEADS, "key": WIDTH // HEADS, "value": WIDTH // HEADS}
    layers = [{"heads": [{k: rng.normal(size=(WIDTH, n)) / 14 for k, n in sizes.items()} for _ in range(HEADS)],
               "up": rng.normal(size=(WIDTH, WIDTH)) / 14, "down": rng.normal(size=(WIDTH, WIDTH)) / 14}
              for _ in range(LAYERS)]  # fmt: skip
    model, weights, x = Encoder(), {"layers": layers}, rng.normal(size=(TOKENS, WIDTH))
    for name, mask in {"full": None, "causal": np.triu(np.full((TOKENS, TOKENS), -1e9), k=1)}.items():
        await model.encode(x, weights, mask)  # traced: one graph without a mask, one with
        before = time.perf_counter()
        result = await model.encode(x, weights, mask)
        took = time.perf_counter() - before
        plain = Encoder.encode.__wrapped__(model, x, weights, mask)  # the body, as the plain function that it is
        assert np.array_equal(result["tokens"], plain["tokens"])
        print(f"{name} attention: {len(model.encode.graph(x, weights, mask))} nodes, {1e3 * took:.0f} ms")


asyncio.run(main())
