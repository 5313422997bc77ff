"""What users may pass: the right answer for every layout, a refusal for everything that would lose its meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnc.compiler.manifest import Port
from nnc.compiler.types.sizes import symbol
from nnc.dsl.errors import ArgumentError, ArgumentTypeError, ResourceError
from nnc.runtime.call.arrays import (
    ALIGNMENT,
    address_of,
    aligned,
    aligned_arrays,
    aligned_bytes,
    bind,
    check_bytes,
    is_finite,
    nbytes,
    wanted,
)
from nnc.runtime.call.messages import human

B, N = symbol("B"), symbol("N")


def bind1(value: object, dtype: str = "f32", shape: tuple = (B, 3)) -> np.ndarray:
    (array,), _ = bind("f", (wanted(Port("x", dtype, shape)),), (value,))
    return array


def refused(value: object, dtype: str = "f32", shape: tuple = (B, 3), kind: type = ArgumentError) -> str:
    with pytest.raises(kind) as caught:
        bind1(value, dtype, shape)
    return str(caught.value)


PLAIN = np.arange(12, dtype=np.float32).reshape(4, 3)


def misaligned() -> np.ndarray:
    raw = np.zeros(PLAIN.nbytes + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(4, 3)
    odd[...] = PLAIN
    assert not odd.flags.aligned
    return odd


def read_only() -> np.ndarray:
    a = PLAIN.copy()
    a.flags.writeable = False
    return a


class Foreign:
    def __array__(self, dtype=None, copy=None):
        return PLAIN.astype(dtype or np.float32)


@pytest.mark.parametrize("value", [
    PLAIN, np.asfortranarray(PLAIN), np.repeat(PLAIN, 2, 1)[:, ::2], PLAIN[::-1][::-1], read_only(), misaligned(),
    PLAIN.astype(">f4"), PLAIN.astype(np.float64), PLAIN.astype(np.float16), PLAIN.astype(np.int64),
    PLAIN.astype(np.uint8), PLAIN.tolist(), tuple(map(tuple, PLAIN.tolist())), memoryview(PLAIN),
    np.ma.masked_array(PLAIN), Foreign(), [list(row) for row in PLAIN],
], ids=lambda v: type(v).__name__)  # fmt: skip
def test_every_layout_gives_the_same_values(value):
    array = bind1(value)
    assert array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned
    np.testing.assert_array_equal(array, PLAIN)


def test_a_good_array_is_not_copied():
    assert bind1(PLAIN) is PLAIN


def test_symbols_are_bound_by_first_use_and_checked_after():
    wants = (wanted(Port("x", "f32", (B, 3))), wanted(Port("label", "i32", (B,))))
    _, sizes = bind("loss", wants, (PLAIN, np.zeros(4, np.int64)))
    assert sizes == {"B": 4}
    with pytest.raises(ArgumentError) as caught:
        bind("loss", wants, (PLAIN, np.zeros(5, np.int32)))
    assert str(caught.value).splitlines() == [
        "error[E0601]: `label` of loss wants i32[B], got i32[5]", "  = help: B is 4 in `x`",
    ]  # fmt: skip


def test_composite_sizes_are_checked_or_solved():
    wants = (wanted(Port("x", "f32", (2 * B + 1,))), wanted(Port("y", "f32", (B * N,))), wanted(Port("z", "f32", (N,))))
    _, sizes = bind("f", wants, (np.zeros(7), np.zeros(6), np.zeros(2)))
    assert sizes == {"B": 3, "N": 2}
    with pytest.raises(ArgumentError, match="axis 0 of `y` of f is 5, but must be B\\*N with B = 3, N = 2"):
        bind("f", wants, (np.zeros(7), np.zeros(5), np.zeros(2)))
    with pytest.raises(ArgumentError, match=r"axis 0 of `x` of f is 6, but must be 2\*B \+ 1"):
        bind("f", wants, (np.zeros(6), np.zeros(5), np.zeros(2)))


def test_wrong_shapes_say_argument_got_and_wanted():
    assert "`x` of f wants f32[B, 3], got f32[4, 2]" in refused(np.zeros((4, 2), np.float32))
    assert "axis 1 is 2, not 3" in refused(np.zeros((4, 2), np.float32))
    assert "x[None]" in refused(np.zeros(3, np.float32))
    assert "got f64" in refused(1.5)
    assert "ragged" in refused([[1, 2, 3], [4]])
    assert "B is one size" in refused(np.zeros((2, 3)), "f32", (B, B))


def test_wrong_dtypes_are_type_errors():
    assert "got f64[3]" in refused(np.array([0.0, 1, 2]), "i32", (B,), ArgumentTypeError)
    assert "wants i32[B]" in refused([0.5], "i32", (B,), ArgumentTypeError)
    for value in (
        np.array(["a"]),
        np.array([1j]),
        np.array([None]),
        np.array(["2020"], "M8[Y]"),
        "text",
        {"a": 1},
        np.array([1.5]),
        object(),
    ):
        refused(value, "bool", (B,), ArgumentTypeError)
    assert "object" in refused(object(), "f32", (), ArgumentTypeError)
    assert "masked" in refused(np.ma.masked_array([1.0, 2], [0, 1]), "f32", (B,), ArgumentTypeError)


def test_a_foreign_array_that_refuses_is_named():
    class Attached:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("can't call numpy() on a tensor that requires grad")

    assert "Attached" in refused(Attached(), kind=ArgumentTypeError)


class Tensor:
    """As PyTorch's: it gives its values only when it does not record gradients, and NumPy has no bfloat16."""

    def __init__(self, values: np.ndarray, dtype: str = "torch.float32", recording: bool = True):
        self.values, self.dtype, self.recording = values, dtype, recording

    def detach(self):
        return Tensor(self.values, self.dtype, False)

    def float(self):
        return Tensor(self.values, "torch.float32", self.recording)

    def __array__(self, *args, **kwargs):
        if self.recording:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


class Exchanged:
    """Nothing but the protocol for arrays of any library."""

    def __init__(self, values: np.ndarray):
        self.__dlpack__, self.__dlpack_device__ = values.__dlpack__, values.__dlpack_device__


def test_tensors_of_other_libraries_are_taken():
    for value in (Tensor(PLAIN), Tensor(PLAIN, "torch.bfloat16"), Exchanged(PLAIN.copy())):
        np.testing.assert_array_equal(bind1(value), PLAIN)


def test_what_is_no_array_is_told_what_to_write():
    class Frame:
        columns = ("a", "species")

        def __array__(self, *args, **kwargs):
            return np.array([[1.0, "fig"]], object)

    assert "some of its columns are no numbers" in refused(Frame(), kind=ArgumentTypeError)
    assert "is for `fit` and `evaluate`" in refused((PLAIN for _ in range(2)), kind=ArgumentTypeError)
    assert "got NoneType" in refused(None, kind=ArgumentTypeError)
    assert "`numpy.load`" in refused("x.npy", kind=ArgumentTypeError)


def test_a_missing_axis_is_said_as_it_is_missing():
    assert "`x[None]`" in refused(PLAIN[0])
    assert "`x[..., None]`" in refused(PLAIN[:, 0], shape=(B, 1))
    assert "`x[..., 0]`" in refused(PLAIN[:, :1], shape=(B,))
    for labels in (np.eye(4, dtype=np.float32), np.eye(4, dtype=np.int64)):
        assert "`x.argmax(-1)`" in refused(labels, "i32", (B,))


def test_values_that_do_not_fit_are_refused():
    assert "value 3000000000" in refused(np.array([3_000_000_000]), "i32", (B,))
    assert f"value {-(2**40)}" in refused(np.array([5, -(2**40)]), "i32", (B,))
    assert "value 2" in refused([0, 1, 2], "bool", (B,))
    assert "1e+300, which f32 cannot hold" in refused([1e300], "f32", (B,))
    assert "18446744073709551615" in refused(np.array([2**64 - 1], np.uint64), "i64", (B,))


def test_what_is_not_a_number_passes():
    array = bind1([np.nan, np.inf, -np.inf, -0.0], "f32", (B,))
    np.testing.assert_array_equal(array, np.float32([np.nan, np.inf, -np.inf, 0]))
    assert np.signbit(array[3])


def test_ints_in_range_and_bools_convert():
    assert bind1([1, 2], "i32", (B,)).dtype == np.int32
    assert bind1([True, False], "i32", (B,)).tolist() == [1, 0]
    assert bind1([0, 1], "bool", (B,)).tolist() == [False, True]
    assert bind1(3, "f32", ()).shape == ()
    assert bind1([], "i32", (B,)).shape == (0,)
    assert bind1(np.zeros((0, 3))).shape == (0, 3)


def test_pictures_with_channels_last(recwarn):
    """Refused where channels are known, with how they are turned; warned of where every size is free."""
    free, known = (B, symbol("C"), symbol("H"), N), (B, 3, symbol("H"), N)
    assert "[B, C, H, W]: `x.transpose(0, 3, 1, 2)`" in refused(np.zeros((2, 32, 16, 3)), shape=known)
    assert "transpose" not in refused(np.zeros((2, 32, 16, 4)), shape=known)
    for shape in ((2, 3, 32, 32), (2, 64, 4, 4), (2, 64, 1, 1), (2, 16, 16, 16)):
        bind1(np.zeros(shape), shape=free)
    bind1(np.zeros((2, 3, 16, 4)), shape=known)
    assert not recwarn
    bind1(np.zeros((2, 32, 16, 3)), shape=free)
    assert "with 32 channels; pictures whose channels are last are `x.transpose" in str(recwarn.pop().message)


def test_an_iterator_is_no_array():
    assert "`list(..)` or `numpy.stack(..)` of it is an array" in refused(iter([1.0]), kind=ArgumentTypeError)


def test_the_absurd_is_refused_before_anything_is_allocated():
    huge = np.broadcast_to(np.float64(1), (10**12, 3))  # takes no memory as it is
    assert "needs 10.9 TB" in refused(huge, kind=ResourceError)
    with pytest.raises(ResourceError, match="E0605"):
        check_bytes(10**18, "`x`")
    assert nbytes((10**9, 10**9, 10**9), np.dtype(np.float32)) == 4 * 10**27
    with pytest.raises(ResourceError):
        aligned((10**12,), np.dtype(np.float32), "`w`")


def test_sizes_as_people_read_them():
    assert [human(n) for n in (0, 1023, 1024, 1536, 5 << 30)] == ["0 B", "1023 B", "1.0 KB", "1.5 KB", "5.0 GB"]


@given(st.lists(st.integers(0, 5), max_size=3), st.sampled_from([np.float32, np.int64, np.bool_]))
def test_aligned_memory(shape, dtype):
    a = aligned(tuple(shape), np.dtype(dtype), "a")
    assert a.shape == tuple(shape) and not a.any() and a.flags.c_contiguous
    assert a.size == 0 or address_of(a) % ALIGNMENT == 0
    assert a.size == 0 or address_of(a) == a.ctypes.data


@pytest.mark.parametrize("n", [0, 1, 2**20 - 1, 2**20, 2**21, 2**21 + 1, 5 * 2**20])
def test_bytes_of_our_own_are_zero_and_all_there(n):
    """In large pages or not."""
    a = aligned_bytes(n, "a")
    assert a.nbytes == n and not a.any() and a.flags.writeable
    assert n == 0 or address_of(a) % ALIGNMENT == 0
    a[:] = 255


@pytest.mark.parametrize("n", [0, 1, 2**16, 2**17 + 1])
def test_what_is_finite_is_found_part_by_part(n):
    a = np.ones((n, 1), np.float32)
    assert is_finite(a) and is_finite(np.float64(1) * np.ones(()))
    for at in {0, n // 2, n - 1} if n else ():
        for bad in (np.nan, -np.inf):
            a[at] = bad
            assert not is_finite(a)
            a[at] = 1


def test_arrays_in_one_block_do_not_overlap():
    wanted = [((3, 5), np.float32), ((), np.int64), ((0, 4), np.float32), ((700, 600), np.float64), ((7,), np.bool_)]
    arrays = aligned_arrays([(shape, np.dtype(dtype)) for shape, dtype in wanted], "arrays")
    for k, (a, (shape, dtype)) in enumerate(zip(arrays, wanted, strict=True)):
        assert a.shape == shape and a.dtype == dtype and address_of(a) % ALIGNMENT == 0 and not a.any()
        a[...] = k % 2 if dtype is np.bool_ else k
    assert all((a == (k % 2 if a.dtype == bool else k)).all() for k, a in enumerate(arrays))
    assert aligned_arrays([], "none") == []
