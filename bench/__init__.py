"""
What the tools cost, beside what else could be used: `python -m bench scan`, and five more.

    scan     decoding alone, `curate scan`, and other ways to the same counts
    emit     what a dataset costs on top of a scan, beside polars writing the same rows
    memory   the peak of a scan whose row groups are larger than it may hold
    select   deciding on a million rows and on fifty
    start    what a run costs before its first row
    kernel   counting alone: by lexicon, by teacher, by kernel, and beside other engines

Every case gives its answer before it is timed; a wrong one is an error, not a row. Contenders stand
side by side: each round runs all of them on the same shards, and ratios are taken inside a round.
"""
