"""The kernels that make all masks at once on a GPU: run by Triton's interpreter, compiled for GPUs, run on one."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.imports import files_that_import, loaded_with

from hidden_subnet.masks.gpu.select import (
    BLOCK,
    Segments,
    apply_segments,
    available,
    has_triton,
    keep_counts,
    select_segments,
    topk_mask_segments,
)
from hidden_subnet.masks.topk import kept_count, topk_mask

TESTS = Path(__file__).parents[2]
with_triton = pytest.mark.skipif(not has_triton(), reason="needs Triton 3.8")


@pytest.mark.slow
@with_triton
def test_in_the_interpreter() -> None:
    """A process of its own: Triton decides when it is imported whether it interprets."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--noconftest",
        "-p",
        "no:xdist",
        "-o",
        "addopts=--import-mode=importlib",
        "-q",
    ]
    done = subprocess.run(
        [*command, str(TESTS / "helpers" / "radix_interpreted.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b\d\d passed", done.stdout)
    assert "skipped" not in done.stdout


def test_triton_is_imported_where_it_is_used_alone() -> None:
    assert files_that_import("triton") == {"hidden_subnet/masks/gpu/kernels.py", "hidden_subnet/masks/gpu/select.py"}
    assert not any(name.startswith("triton") for name in loaded_with("hidden_subnet.masks.gpu.select"))


def test_without_a_gpu_it_falls_back() -> None:
    assert not available(torch.device("cpu"))
    scores = [torch.tensor([1.0, 3.0, -2.0]), torch.tensor([[1.0, -1.0], [1.0, 0.0]], dtype=torch.float64)]
    first, second = topk_mask_segments(scores, [2, 1])
    assert first.int().tolist() == [0, 1, 1]
    assert second.int().tolist() == [[0, 0], [1, 0]]
    with pytest.raises(ValueError, match="GPU with Triton"):
        Segments.of(scores)


def ptx(kernel: Any, capability: int, **constants: Any) -> str:
    """Return what the kernel is compiled to; no GPU is needed for that."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: "*i64" if name in ("scores", "weights", "outputs") else "*i32" for name in kernel.arg_names}
    source = ASTSource(
        fn=kernel,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={(at,): [["tt.divisibility", 16]] for at in range(len(signature) - len(constants))},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    assembler: str = compiled.asm["ptx"]
    return assembler


@pytest.mark.slow
@with_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_and_move_four_words_at_a_time(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton.language as tl

    from hidden_subnet.masks.gpu import kernels

    # A thread has 32 weights of a block, and 8 where four programs apply it.
    counting = ptx(kernels.count_digits, capability, HIGH=31, LOW=20, BLOCK=BLOCK)
    assert counting.count("ld.global.v4.b32") == 8
    assert "shared.add" in counting  # within a program the counts stay on the chip
    applying = ptx(kernels.apply, capability, DTYPE=tl.float32, BLOCK=BLOCK, PARTS=4)
    assert applying.count("ld.global.v4.b32") == 4
    assert applying.count("st.global.v4.b32") == 2
    for dtype in (tl.bfloat16, tl.int8):
        ptx(kernels.apply, capability, DTYPE=dtype, BLOCK=BLOCK, PARTS=4)
    ptx(kernels.refine, capability, HIGH=10, LOW=0)
    ptx(kernels.count_equal, capability, BLOCK=BLOCK)
    ptx(kernels.cut_equal, capability, BLOCK=BLOCK, CHUNK=1024)


def gpu_scores() -> list[torch.Tensor]:
    """Make 4.2 million weights: continuous, full of ties (row-major and channels_last), all equal, and small ones."""
    source = torch.Generator().manual_seed(0)
    ties = torch.randint(-9, 10, (256, 256, 3, 3), generator=source).float()
    scores = [
        torch.rand(2_900_001, generator=source) - 0.5,
        ties,
        ties.to(memory_format=torch.channels_last),
        torch.zeros(100_003),
        torch.randn(1, generator=source),
        torch.randn(BLOCK + 1, generator=source),
    ]
    return [each.cuda() for each in scores]


@pytest.mark.gpu
@pytest.mark.parametrize("prune_rate", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_the_same_masks_on_a_gpu(prune_rate: float) -> None:
    scores = gpu_scores()
    assert available(scores[0].device)
    keep = [kept_count(each.numel(), prune_rate) for each in scores]
    for mask, each, count in zip(topk_mask_segments(scores, keep), scores, keep, strict=True):
        assert int(mask.sum()) == count
        assert torch.equal(mask.cpu(), topk_mask(each.cpu(), count))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_holds_it_and_the_host_does_not_wait(dtype: torch.dtype) -> None:
    scores = gpu_scores()
    segments = Segments.of(scores)
    weights = segments.alike([torch.randn_like(each) for each in scores])
    effective = segments.alike([torch.empty_like(each, dtype=dtype) for each in scores])
    keep = keep_counts(segments, [kept_count(each.numel(), 0.5) for each in scores])

    def step() -> None:
        apply_segments(segments, select_segments(segments, keep), weights, effective)

    step()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for prune_rate in (0.9, 0.3):  # other scores and another rate, the same graph
        counts = [kept_count(each.numel(), prune_rate) for each in scores]
        keep.copy_(keep_counts(segments, counts))
        for each in scores:
            each.mul_(-1.5)
        scores[3].add_(1.0)
        graph.replay()
        torch.cuda.synchronize()
        for result, each, weight, count in zip(effective.tensors, scores, weights.tensors, counts, strict=True):
            mask = topk_mask(each.cpu(), count)
            assert torch.equal(result.cpu(), torch.where(mask, weight.cpu(), 0).to(dtype))
