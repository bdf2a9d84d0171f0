"""What we save, opened by PyLate and by sentence-transformers 5."""

from pylate import models

from tests.parity.cases import cases
from tests.parity.embedded import embedded
from tests.parity.test_layouts_live import EAGER, assert_close

LATE = cases("pylate", "colbert")


def assert_same_tokens(model, params, folder, texts):
    theirs = models.ColBERT(str(folder), device="cpu", model_kwargs=EAGER)
    for side, key in (("query", "queries"), ("document", "documents")):
        ours = embedded(model, params, texts, side)
        rows = theirs.encode(list(texts[key]), is_query=side == "query")
        for vectors, mask, row in zip(ours.tokens, ours.mask, rows, strict=True):
            assert_close(vectors[mask], row)
    return theirs
