import pytest

from jaxret.errors import InputError
from jaxret.runtime.processes import join_processes


def test_a_process_without_others_is_an_input_error(monkeypatch):
    for variable in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match=r"^--distributed: .*not found.*Set JAX_COORDINATOR_ADDRESS"):
        join_processes()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(InputError, match=r"^--distributed: .*'two'"):
        join_processes()
