"""The mathematics of merging: θ = θ_a + w·(θ_b − θ_a)."""

from __future__ import annotations

import math

import pytest
import torch

from ddo_plugin import UserError, interpolate
from ddo_plugin.snapshots.merged_files import name_of

A = {
    "weight": torch.tensor([1.0, -2.0, 0.1]),
    "buffer": torch.tensor([5.0, -math.inf]),
    "steps": torch.tensor([3, 4]),
    "on": torch.tensor([True, False]),
}
B = {
    "weight": torch.tensor([2.0, 2.0, 0.3]),
    "buffer": torch.tensor([6.0, -math.inf]),
    "steps": torch.tensor([7, 9]),
    "on": torch.tensor([False, False]),
}


def merged(w: float) -> list[float]:
    return interpolate(A, B, w, fixed=["buffer"])["weight"].tolist()


@pytest.mark.parametrize(("w", "expected"), [(0.5, 1.5), (2, 3.0), (-1, 0.0), (0.25, 1.25), (1.5, 2.5)])
def test_it_interpolates_and_extrapolates_on_the_line_through_both(w: float, expected: float) -> None:
    assert merged(w)[0] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("w", [0, 1, 0.0, 1.0, -0.0])
def test_w_0_and_1_are_the_parents_bit_for_bit(w: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b = ({"x": torch.randn(1000).to(dtype) * 1e-3, "i": torch.arange(n, n + 5)} for n in range(2))
    made = interpolate(a, b, w, fixed=["i"])
    assert all(made[name].dtype == (b if w else a)[name].dtype for name in a)
    assert all(made[name].equal((b if w else a)[name]) for name in a)


def test_a_plain_formula_in_fp32_would_miss_the_second_parent() -> None:
    a, b = torch.tensor([1e8]), torch.tensor([0.1])
    assert not (a + 1 * (b - a)).equal(b)
    assert interpolate({"x": a}, {"x": b}, 1)["x"].equal(b)


@pytest.mark.parametrize("w", [0.5, 1.5, -1])
def test_integers_and_fixed_tensors_are_those_of_a(w: float) -> None:
    made = interpolate(A, B, w, fixed=["buffer"])
    assert all(made[name].equal(A[name]) for name in ("buffer", "steps", "on"))
    assert list(made) == list(A)


def test_half_precision_is_rounded_once() -> None:
    """Each fp16 result is the fp16 number nearest to the exact one; a sum in fp16 is often another."""
    torch.manual_seed(0)
    a, b = torch.randn(10_000).half(), torch.randn(10_000).half()
    made = interpolate({"x": a}, {"x": b}, 1.7)["x"]
    assert made.dtype == torch.float16
    exact = a.double() + 1.7 * (b.double() - a.double())
    assert made.equal(exact.half())
    assert not made.equal(a + 1.7 * (b - a))


def test_parents_of_two_dtypes_give_the_more_precise_one() -> None:
    half, full = {"x": torch.tensor([0.5]).half()}, {"x": torch.tensor([0.1])}
    assert interpolate(half, full, 0.5)["x"].dtype == interpolate(full, half, 0.5)["x"].dtype == torch.float32
    assert interpolate(half, full, 0)["x"].dtype == torch.float16


def test_merging_is_symmetric() -> None:
    torch.manual_seed(0)
    a, b = ({"x": torch.randn(1000)} for _ in range(2))
    for w in (-0.75, 0.25, 1.5):  # exact in binary, and so is 1 − w
        assert torch.allclose(interpolate(a, b, w)["x"], interpolate(b, a, 1 - w)["x"], rtol=1e-6, atol=1e-12)
    assert interpolate(a, a, 3.3)["x"].equal(a["x"])


def test_the_parents_stay_as_they_are() -> None:
    before = {name: tensor.clone() for name, tensor in A.items()}
    interpolate(A, B, 0.3, fixed=["buffer"])["weight"].add_(1)
    assert all(A[name].equal(before[name]) for name in A)


def test_what_is_prepared_is_merged_but_not_the_ends() -> None:
    halve = {"prepare": lambda name, tensor: tensor / 2 if name == "weight" else tensor, "fixed": ["buffer"]}
    assert interpolate(A, B, 0.5, **halve)["weight"][0] == 0.75
    assert interpolate(A, B, 1, **halve)["weight"].equal(B["weight"])


@pytest.mark.parametrize("w", [math.nan, math.inf, -math.inf])
def test_a_w_that_is_not_finite_is_refused(w: float) -> None:
    with pytest.raises(UserError, match="not a finite number"):
        interpolate(A, B, w)


def test_a_result_that_overflows_is_refused() -> None:
    half = [{"x": torch.tensor([value]).half()} for value in (-4.0, 4.0)]
    with pytest.raises(UserError, match="x of the merged network is not finite in float16; choose w nearer"):
        interpolate(*half, 10_000)
    assert interpolate(*half, 8000)["x"].isfinite().all()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"weight": A["weight"]}, r"only the first has buffer \(differing tensors: 3\)"),
        ({**B, "more": torch.zeros(1)}, r"only the second has more \(differing tensors: 1\)"),
        ({**B, "weight": torch.zeros(4)}, r"weight is \(3,\) float32 and \(4,\) float32"),
        ({**B, "weight": torch.zeros(3, dtype=torch.int8)}, r"weight is \(3,\) float32 and \(3,\) int8"),
    ],
)
@pytest.mark.parametrize("w", [0, 0.5])
def test_different_architectures_are_refused(other: dict[str, torch.Tensor], told: str, w: float) -> None:
    with pytest.raises(UserError, match=told):
        interpolate(A, other, w)


def test_each_w_has_a_name_of_its_own(tmp_path) -> None:
    names = {w: name_of(tmp_path / "net.pkl", w) for w in (0.0, 1.0, 1.5, -0.5, 0.1234567, 0.12345678, 1e20, 1e-9)}
    assert [names[w] for w in (0.0, 1.0, 1.5, -0.5)] == ["net-w0.pkl", "net-w1.pkl", "net-w1.5.pkl", "net-w-0.5.pkl"]
    assert len(set(names.values())) == len(names)
    assert name_of(tmp_path / "net.pkl", -0.0) == "net-w0.pkl"
