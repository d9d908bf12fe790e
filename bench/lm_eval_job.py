"""
The prompts of `bench.generating` by lm-evaluation-harness, run by a Python that has it.

    $ python bench/lm_eval_job.py PLACE DEVICE LIMIT THREADS
"""

import json
import sys
import time
from pathlib import Path

WARM_TOKENS, BATCH = 8, 64


def main(place: str, device: str, limit: str, threads: str) -> None:
    """Print what was written, and the seconds that it took."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(int(threads))
    texts = json.loads(Path(place, "prompts.json").read_text())["texts"]
    model = HFLM(
        pretrained=f"{place}/model",
        dtype="float32",
        device=device,
        batch_size=BATCH,
        backend="causal",
    )

    def write(limit: int) -> list[str]:
        options = {"until": [], "max_gen_toks": limit, "do_sample": False}
        asked = [
            Instance(request_type="generate_until", doc={}, arguments=(text, options), idx=n)
            for n, text in enumerate(texts)
        ]
        return list(model.generate_until(asked, disable_tqdm=True))

    write(WARM_TOKENS)
    began, spent = time.perf_counter(), time.process_time()
    found = write(int(limit))
    told = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - spent}
    written = [
        [int(word[1:]) for word in text.split() if word not in ("<end>", "<pad>")] for text in found
    ]
    print(json.dumps(told | {"written": written}))


if __name__ == "__main__":
    main(*sys.argv[1:])
