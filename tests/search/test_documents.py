import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.documents import DOCUMENTS, OFFSETS, Document, Documents, write_documents

MANY = [Document(f"d{n}", f"title {n}" * (n % 2), "四月\u2028 " * n) for n in range(5)]


def test_documents_come_back_at_their_places(tmp_path):
    documents = Documents(tmp_path, write_documents(tmp_path, iter(MANY), len(MANY)))
    assert len(documents) == 5 and [documents[place] for place in (3, 0, 4, 1, 2, 2)] == [
        MANY[n] for n in (3, 0, 4, 1, 2, 2)
    ]
    assert (tmp_path / DOCUMENTS).read_text().count("\n") == 5


def test_one_damaged_line_leaves_the_others_readable(tmp_path):
    digest = write_documents(tmp_path, MANY, len(MANY))
    data = bytearray((tmp_path / DOCUMENTS).read_bytes())
    ends = np.load(tmp_path / OFFSETS)["end"].tolist()
    for place in range(ends[1], ends[2]):
        data[place] ^= 1
        (tmp_path / DOCUMENTS).write_bytes(data)
        documents = Documents(tmp_path, digest)
        with pytest.raises(InputError, match=r"documents\.jsonl:3: damaged.*Run jaxret index again"):
            documents[2]
        assert [documents[n] for n in (0, 1, 3, 4)] == [MANY[n] for n in (0, 1, 3, 4)]
        data[place] ^= 1


def test_files_that_do_not_fit_are_named_at_once(tmp_path):
    digest = write_documents(tmp_path, MANY, len(MANY))
    whole = (tmp_path / DOCUMENTS).read_bytes()
    for data in (whole[:-1], whole + b"\n", b""):
        (tmp_path / DOCUMENTS).write_bytes(data)
        with pytest.raises(
            InputError, match=rf"documents\.jsonl: damaged \({len(data)} bytes instead of {len(whole)}\)"
        ):
            Documents(tmp_path, digest)
    (tmp_path / DOCUMENTS).write_bytes(whole)
    other = write_documents(tmp_path, MANY[:3], 3)
    with pytest.raises(InputError, match=r"offsets\.npy: damaged \(its checksum differs\)\. Run jaxret index again"):
        Documents(tmp_path, digest)
    assert len(Documents(tmp_path, other)) == 3
