"""Columns: any array of numbers or strings comes back as it was; anything else on the wire is poison."""

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError

NUMBERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0))))
def test_numbers_come_back_as_they_were(values):
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(Column.of(values)), type=Column).array()
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


@given(hnp.arrays(object, hnp.array_shapes(max_dims=2, min_side=0), elements=st.text(max_size=5)))
def test_strings_come_back_as_they_were(values):
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(Column.of(values)), type=Column).array()
    assert back.shape == values.shape
    assert back.tolist() == values.tolist()


def test_big_endian_and_strided_arrays_are_packed_little_endian_in_c_order():
    values = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    column = Column.of(values)
    assert column.dtype == "<i4"
    assert column.data == np.array([[0, 2], [4, 6], [8, 10]], "<i4").tobytes()


def test_a_string_keeps_the_nul_at_its_end():
    assert Column.of(np.array(["UA\0", "UA"], object)).array().tolist() == ["UA\0", "UA"]


def test_a_repeated_string_is_sent_once():
    assert Column.of(np.array(["UA", "AA", "UA"], object)).strings == ("AA", "UA")


def test_length_is_the_number_of_rows():
    assert len(Column.of(np.zeros((5, 2)))) == 5


@pytest.mark.parametrize("values", [np.zeros(2, "c16"), np.zeros(2, "M8[ns]"), np.zeros(2, "V4")])
def test_what_has_no_place_on_the_wire_is_refused(values):
    with pytest.raises(ValueError, match="numbers or strings"):
        Column.of(values)


@pytest.mark.parametrize(
    "column",
    [
        Column(dtype="<f8", shape=(2,), data=b"\0" * 15),
        Column(dtype="<f8", shape=(3,), data=b"\0" * 16),
        Column(dtype="<f8", shape=(-2, -1), data=b"\0" * 16),
        Column(dtype="O", shape=(1,), data=b"\0" * 8),
        Column(dtype="<M8[ns]", shape=(1,), data=b"\0" * 8),
        Column(dtype="str", shape=(1,), data=b"\x01\0\0\0", strings=("only",)),
        Column(dtype="str", shape=(1,), data=b"\xff\xff\xff\xff", strings=("only",)),
        Column(dtype="str", shape=(1,), data=b"\0\0\0\0", strings=()),
    ],
)
def test_a_column_that_does_not_fit_itself_is_poison(column):
    with pytest.raises(PoisonError):
        column.array()


@given(
    st.sampled_from(["str", "<f8", "|b1", "<i2", "garbage"]),
    st.lists(st.integers(-3, 9), max_size=3),
    st.binary(max_size=40),
    st.lists(st.text(max_size=2), max_size=2),
)
def test_no_column_raises_anything_but_poison(dtype, shape, data, strings):
    column = Column(dtype=dtype, shape=tuple(shape), data=data, strings=tuple(strings))
    with contextlib.suppress(PoisonError):
        column.array()
