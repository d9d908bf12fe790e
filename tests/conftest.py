"""What tests share: the real traces, and shards written on the spot. Nothing is seeded globally."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# The first example of a property may have to wait for Numba to compile.
settings.register_profile("curate", deadline=None, print_blob=True)
settings.load_profile("curate")

WriteShard = Callable[..., Path]


@pytest.fixture(scope="session")
def traces() -> Path:
    """The Parquet file of real traces, under `../shared/data` or where CURATE_DATA says."""
    folder = Path(os.environ.get("CURATE_DATA") or ROOT.parent / "shared" / "data")
    path = folder / "traces" / "traces.parquet"
    if not path.is_file():
        pytest.skip(f"no real traces: {path} is no file; CURATE_DATA names the folder of data sets")
    return path


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Write columns as a Parquet file: `write_shard("a/0.parquet", trace=[...], group_rows=2)`."""

    def write(name: str = "0.parquet", *, group_rows: int | None = None, **columns: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, row_group_size=group_rows)
        return path

    return write
