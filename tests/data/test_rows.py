import gzip

import pytest

from jaxret.data.rows import BadRows, json_rows, lines, tsv_rows
from jaxret.errors import InputError

HEADER = ("a", "b")


def test_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "x"
    path.write_bytes("\ufeffone\n\n \nfour\r\nfive".encode())
    assert list(lines(path)) == [(1, "one\n"), (4, "four\r\n"), (5, "five")]


def test_plain_and_gzip_are_the_same(tmp_path):
    content = "".join(f"行{i}\n" for i in range(5000)).encode()
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "y.gz").write_bytes(gzip.compress(content))
    assert list(lines(tmp_path / "x")) == list(lines(tmp_path / "y"))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        list(lines(tmp_path / "nowhere"))


@pytest.mark.parametrize("zipped", [False, True])
def test_not_utf8_names_the_line(tmp_path, zipped):
    content = b"good\n" * 3000 + "いろは\n".encode("euc_jp") + b"good\n" * 10
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(InputError, match=r"x(\.gz)?:3001: not UTF-8"):
        list(lines(path))


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-3], lambda data: b"no gzip"]
)
def test_damaged_gzip(tmp_path, damage):
    content = "".join(f"line {i * i}\n" for i in range(9000)).encode()
    (tmp_path / "x.gz").write_bytes(damage(gzip.compress(content)))
    with pytest.raises(InputError, match=r"x\.gz:\d+: gzip data broken or cut off"):
        list(lines(tmp_path / "x"))


def test_damage_inside_gzip(tmp_path):
    data = bytearray(gzip.compress("".join(f"line {i * i}\n" for i in range(9000)).encode()))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"x\.gz:\d+: (gzip data broken|not UTF-8)"):
        list(lines(tmp_path / "x"))


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"a": 1', r"x:2: broken JSON, found .*column 8"), ("[1]", r"x:2: not a JSON object, found \[1\]")],
)
def test_broken_json(tmp_path, line, message):
    (tmp_path / "x").write_text('{"a": 0}\n' + line + '\n{"a": 2}\n')
    with pytest.raises(InputError, match=message):
        list(json_rows(tmp_path / "x", BadRows()))
    skip = BadRows("skip")
    assert list(json_rows(tmp_path / "x", skip)) == [(1, {"a": 0}), (3, {"a": 2})]
    assert list(skip.counts.values()) == [1]


def test_tsv(tmp_path):
    (tmp_path / "x").write_text("a\tb\r\n1\t2\r\n\n3\t4 5\n")
    assert list(tsv_rows(tmp_path / "x", HEADER, BadRows())) == [(2, ["1", "2"]), (4, ["3", "4 5"])]


@pytest.mark.parametrize("line", ["1", "1\t", "1\t2\t3", "1 2"])
def test_tsv_wrong_columns(tmp_path, line):
    (tmp_path / "x").write_text(f"a\tb\n5\t6\n{line}\n")
    with pytest.raises(InputError, match=r"x:3: not 2 filled columns.* Write a<TAB>b\."):
        list(tsv_rows(tmp_path / "x", HEADER, BadRows()))
    skip = BadRows("skip")
    assert list(tsv_rows(tmp_path / "x", HEADER, skip)) == [(2, ["5", "6"])]
    assert skip.counts == {"x: not 2 filled columns": 1}


@pytest.mark.parametrize("content", ["", "1\t2\n", "b\ta\n"])
def test_tsv_wrong_header(tmp_path, content):
    (tmp_path / "x").write_text(content)
    for policy in ("raise", "skip"):
        with pytest.raises(InputError, match=r"x:1: .*Write a<TAB>b\."):
            list(tsv_rows(tmp_path / "x", HEADER, BadRows(policy)))


def test_unknown_policy():
    with pytest.raises(InputError, match=r'unknown policy .ignore.*"raise" or "skip"'):
        BadRows("ignore")
