"""Sampling settings by name."""

from dataclasses import dataclass, field

from curate.evaluate.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Preset:
    """How tokens are drawn, and how many samples of each problem by task; others have a default."""

    sampling: Sampling
    samples: dict[str, int] = field(default_factory=dict)


PRESETS = {
    "default": Preset(Sampling()),
    # arXiv 2604.06628, section on evaluation and its evaluation code; one sample where it has one.
    "paper-b": Preset(
        Sampling(temperature=0.6, top_p=0.95, top_k=0, max_new_tokens=32_768, seed=1234),
        {
            "math500": 3,
            "aime24": 10,
            "gpqa_diamond": 3,
            "mmlu_pro": 1,
            "ifeval": 1,
            "halueval_qa": 1,
            "halueval_dialogue": 1,
            "halueval_summarization": 1,
        },
    ),
    "greedy": Preset(Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=32_768)),
}

GREEDY_SAMPLES = 1
"""A second greedy completion of a prompt would be the first one again."""
