"""What the values of a mask mean: looked up for every type and range of values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.common.label_table import apply_table, parse_number_table, parse_table
from kvseg_monai.errors import InputError

TABLE = parse_number_table("0=background,-3=a,127=b,-128=b,70000=c")
KINDS = st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])


@given(KINDS.flatmap(lambda kind: hnp.arrays(kind, (2, 3), elements=hnp.from_dtype(np.dtype(kind)))), st.data())
def test_each_voxel_is_looked_up_or_the_mask_refused(mask, data):
    known = [int(key) for key in TABLE.values if np.can_cast(np.min_scalar_type(int(key)), mask.dtype)]
    for place in np.ndindex(mask.shape):
        if data.draw(st.sampled_from([True] * 9 + [False])):
            mask[place] = data.draw(st.sampled_from(known))
    values = [value.item() for value in mask.ravel()]
    if all(value in [int(key) for key in TABLE.values] for value in values):
        expected = [TABLE.values[str(int(value))] for value in values]
        assert apply_table(mask, TABLE, file="mask").ravel().tolist() == expected
    else:
        with pytest.raises(InputError, match=r"mask holds the value .*, which --labels does not name"):
            apply_table(mask, TABLE, file="mask")


def test_classes_are_numbered_as_they_are_named():
    assert parse_table("x=liver,y=background,z=spleen,w=liver").names == {0: "background", 1: "liver", 2: "spleen"}


def test_a_label_map_has_8_bits():
    with pytest.raises(InputError, match="the labels are 300 classes; at most 254 fit a label map"):
        parse_table(",".join(f"{number}=c{number}" for number in range(300)))
